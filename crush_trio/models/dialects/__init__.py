"""The protocols that providers speak: pure, each from a request to HTTP and from events back.

`port.Dialect` is what each of them is. A dialect's module is imported when a model that speaks it
is first used.
"""

from __future__ import annotations

import importlib
from typing import Final

from crush_trio.models.dialects.port import Dialect

DIALECTS: Final = {
    "openai-chat": "chat",
    "openai-responses": "responses",
    "anthropic": "anthropic",
    "gemini": "gemini",
}
"""The name of each dialect, and the package here whose ``dialect.DIALECT`` speaks it."""


def dialect(name: str) -> Dialect:
    """The dialect called ``name``, a key of `DIALECTS`."""
    module = importlib.import_module(f"{__name__}.{DIALECTS[name]}.dialect")
    found: Dialect = module.DIALECT
    return found
