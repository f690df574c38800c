"""Bytes of a page as text: which encoding they are in, and what is left when they are not; pure."""

from __future__ import annotations

import codecs
import re
from typing import Final

_HEAD_BYTES: Final = 4_096
"""Where a page may say its own encoding; further on it counts no more."""
_DECLARED: Final = re.compile(
    rb"<meta[^>]{0,400}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.-]{1,40})"
    rb"|<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([A-Za-z0-9_:.-]{1,40})",
    re.IGNORECASE,
)
_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_KNOWN: Final = {
    "utf8": "utf-8",
    "utf16": "utf-16-le",
    "utf16le": "utf-16-le",
    "utf16be": "utf-16-be",
    "ascii": "cp1252",
    "usascii": "cp1252",
    "latin1": "cp1252",
    "iso88591": "cp1252",
    "iso885915": "iso8859-15",
    **{f"iso8859{n}": f"iso8859-{n}" for n in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 16)},
    "iso88599": "cp1254",
    **{f"windows{n}": f"cp{n}" for n in range(1250, 1259)},
    **{f"cp{n}": f"cp{n}" for n in range(1250, 1259)},
    "windows874": "cp874",
    "tis620": "cp874",
    "koi8r": "koi8-r",
    "koi8u": "koi8-u",
    "ibm866": "cp866",
    "macintosh": "mac-roman",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "gb18030": "gb18030",
    "big5": "big5hkscs",
    "eucjp": "euc-jp",
    "iso2022jp": "iso2022-jp",
    "shiftjis": "cp932",
    "sjis": "cp932",
    "euckr": "cp949",
    "ksc56011987": "cp949",
}
"""Encodings of the web by their names without marks, as browsers understand them (WHATWG)."""


def charset_of(body: bytes, stated: str) -> str:
    """The codec of a body: by its byte order mark, the header's word, its own word; else UTF-8."""
    for mark, codec in _MARKS:
        if body.startswith(mark):
            return codec
    if codec := _known(stated):
        return codec
    declared = _DECLARED.search(body[:_HEAD_BYTES])
    if declared:
        said = _known((declared[1] or declared[2]).decode("ascii"))
        # What was read as ASCII up to here is not UTF-16, whatever it says.
        return "utf-8" if said.startswith("utf-16") else said or "utf-8"
    return "utf-8"


def decoded(body: bytes, stated: str) -> str:
    """The text of a body; what is not in its encoding becomes U+FFFD."""
    text = body.decode(charset_of(body, stated), "replace")
    return text.removeprefix("\ufeff")


def _known(name: str) -> str:
    return _KNOWN.get(re.sub(r"[^a-z0-9]", "", name.lower()), "")
