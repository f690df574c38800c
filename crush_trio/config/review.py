"""The inert parts of a directory's files as a person is shown them before trusting it."""

from __future__ import annotations

import json
import re
from typing import Any

from crush_trio.config.load import Review

MASK = "***"

# Of a value with such a name only a literal is masked, never what is run or looked up.
_SECRET = re.compile(
    r"(^|[-_])(api[-_]?key|key|token|secret|password|passwd|authorization|credentials?|cookie)s?$",
    re.IGNORECASE,
)
_USER_INFO = re.compile(r"(//)[^/?#@\s]*@")


def review_text(review: Review) -> str:
    """Every inert part in full, by file: commands and addresses as they are, secrets masked.

    Nothing is cut, since what is not seen must not be allowed; what could move a terminal's
    cursor or turn the direction of text is written as an escape.
    """
    lines = []
    file = ""
    for name, part in review.parts:
        if name != file:
            file = name
            lines.append(f"{review.directory / name}:")
        key = part.keys[-1]
        text = json.dumps(_masked(part.value, secret=_is_secret(key)), indent=2)
        lines += [f"  {line}" for line in f"{part.name}: {text}".split("\n")]
    return "\n".join(lines)


def _is_secret(name: str) -> bool:
    return bool(_SECRET.search(name)) or name.lower().endswith("apikey")


def _masked(value: Any, *, secret: bool) -> Any:
    if isinstance(value, dict):
        return {key: _masked(item, secret=_is_secret(key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_masked(item, secret=secret) for item in value]
    if not isinstance(value, str) or not value:
        return value
    if secret and "$" not in value:
        return MASK
    return value if "$" in value else _USER_INFO.sub(rf"\1{MASK}@", value)
