"""Small catalogue files for the tests of this directory."""

from __future__ import annotations

import copy
from typing import Any

import orjson

_FILE: dict[str, Any] = {
    "format": 1,
    "date": "2027-01-31",
    "about": "for tests",
    "sources": ["tests"],
    "providers": [
        {
            "id": "openai",
            "name": "OpenAI",
            "type": "openai",
            "dialect": "openai-responses",
            "base_url": "https://api.openai.com/v1",
            "key_variables": ["OPENAI_API_KEY"],
            "default_large": "large-1",
            "default_small": "small-1",
            "models": [
                {"id": "large-1", "context_window": 1000, "max_output_tokens": 100},
                {"id": "small-1", "cost_per_1m_in": 1, "cost_per_1m_out": 2.5},
            ],
        }
    ],
}


def file() -> dict[str, Any]:
    """A valid file, to be spoilt."""
    return copy.deepcopy(_FILE)


def raw(value: Any) -> bytes:
    """A value as the bytes of a file."""
    return orjson.dumps(value)
