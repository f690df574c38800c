"""Identifiers, and what counts as a valid one."""

from __future__ import annotations

import base64
import re
import secrets
from typing import NewType

from crush_trio.limits import RUN_ID_MAX_CHARS

WorkspaceId = NewType("WorkspaceId", str)
SessionId = NewType("SessionId", str)
MessageId = NewType("MessageId", str)
RunId = NewType("RunId", str)
Seq = NewType("Seq", int)
"""Position of an event in its workspace's journal, from 1, gap-free (G8)."""

_CLIENT_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z", re.IGNORECASE)
_RUN_ID = re.compile(rf"[A-Za-z0-9._:-]{{1,{RUN_ID_MAX_CHARS}}}\Z")


def new_id() -> str:
    """A fresh id: 13 characters of ``[a-z2-7]``, 65 random bits.

    Short, because three ids travel with every delta and its fixed part is at most 160 bytes
    (contract 4).
    """
    return base64.b32encode(secrets.token_bytes(9))[:13].decode().lower()


def is_run_id(text: str) -> bool:
    """Whether ``text`` may name a run: 1-128 of ``[A-Za-z0-9._:-]`` (contract 1)."""
    return _RUN_ID.match(text) is not None


def is_client_id(text: str) -> bool:
    """Whether ``text`` may name a client of Crush's protocol: a UUID (R20)."""
    return _CLIENT_ID.match(text) is not None
