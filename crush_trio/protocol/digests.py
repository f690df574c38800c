"""What a permission request says, as one short word: who answers names what was shown."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson


def request_digest(shown: Mapping[str, Any]) -> str:
    """The digest of a permission request as JSON: SHA-256, 64 hexadecimal digits.

    Of every key but ``digest``, as JSON with sorted keys, without spaces, in UTF-8. A client that
    computes it from what it has shown cannot allow anything else, and a request that was cut to
    fit a frame has another one.

    Raises:
        TypeError: ``shown`` is not what JSON can hold; nothing that was decoded from JSON.
    """
    plain = {key: value for key, value in shown.items() if key != "digest"}
    return hashlib.sha256(orjson.dumps(plain, option=orjson.OPT_SORT_KEYS)).hexdigest()
