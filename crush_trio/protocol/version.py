"""The protocol's major number: both sides go on only when theirs are equal (contract 6)."""

from __future__ import annotations

PROTOCOL = 1
