"""What a checkup finds: one line each, as ``POST …/doctor`` and ``crush-trio doctor`` tell it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

import attrs

Status: TypeAlias = Literal["ok", "warn", "fail"]
"""All is well; something is worse than it could be; nothing works like this."""

NAMES: Final = (
    "program",
    "data_dir",
    "socket",
    "configuration",
    "sandbox",
    "server",
    "processes",
    "workspace",
    "model",
    "key",
    "connection",
    "model_list",
    "answer",
    "streaming",
    "usage",
    "tools",
    "context",
    "small_model",
    "checkup",
)
"""Every name a check can have, in the order in which they are made; a name never changes."""


@attrs.frozen
class Check:
    """One thing that was looked at.

    Args:
        name: One of `NAMES`; no two of a checkup have the same.
        status: See `Status`.
        seen: What was found, in one line without a secret.
        advice: What to do about it, as a sentence; empty if nothing needs to be done.
        code: What failed, as the error codes of runs; empty if nothing did.
        data: The same as ``seen`` for programs.
    """

    name: str
    status: Status
    seen: str
    advice: str = ""
    code: str = ""
    data: Mapping[str, Any] = attrs.field(factory=dict)

    def as_json(self) -> dict[str, Any]:
        """As it is written; every key is always there."""
        return {
            "name": self.name,
            "status": self.status,
            "seen": self.seen,
            "advice": self.advice,
            "code": self.code,
            "data": dict(self.data),
        }
