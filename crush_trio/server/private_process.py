"""Keeps other processes of the same user from looking into the server's (T36)."""

from __future__ import annotations

import sys

_PR_SET_DUMPABLE = 4


def keep_private() -> None:
    """Let no other process trace this one, read its memory or its environment. Linux only.

    What it starts is not kept so: a program that is executed can be looked into again. Root, who
    could do anything else, still can. No core dump is written either, in which keys would be.
    """
    if sys.platform == "linux":
        import ctypes  # here: other systems have no use for it

        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
