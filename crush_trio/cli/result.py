"""The first and the last line of ``stream-json``, and the one object of ``json`` (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crush_trio.cli.exit_codes import CONFIGURATION, UNREACHABLE, USAGE

SCHEMA_VERSION = 1
"""Of the lines that the command line adds to the server's frames."""

ERROR_WORDS = {USAGE: "usage", CONFIGURATION: "configuration", UNREACHABLE: "unreachable"}
"""Exit code → code of an error of this side."""

_COPIED = (
    "kind", "parent_run", "message_id", "model", "provider", "usage", "cost_usd", "steps",
    "tool_calls", "denied", "cancelled_by", "processes", "created_at_ms", "started_at_ms",
    "finished_at_ms",
)  # fmt: skip


def start_line(
    *,
    run_id: str,
    session_id: str | None,
    workspace_id: str | None,
    receipt: Mapping[str, Any],
    server: Mapping[str, Any],
) -> dict[str, Any]:
    """The first line: which run this is about, and where its events begin."""
    return {
        "type": "start",
        "schema_version": SCHEMA_VERSION,
        "run_id": run_id,
        "session_id": session_id,
        "workspace_id": workspace_id,
        "disposition": receipt.get("disposition"),
        "position": receipt.get("position"),
        "seq": receipt.get("seq"),
        "ignored": receipt.get("ignored", []),
        "server_version": server.get("version"),
        "server_id": server.get("server_id"),
    }


def result_line(
    *,
    run_id: str,
    session_id: str | None,
    record: Mapping[str, Any] | None,
    exit_code: int,
    steered_into: str | None = None,
    reason: str | None = None,
    error: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The last line, in every case.

    Args:
        run_id: The run that was submitted.
        session_id: Its session, if it got that far.
        record: The finished record (of the run it joined, if it was steered), or ``None`` when
            the end of the run is not known.
        exit_code: The command's.
        steered_into: The run whose record this is, if it is not the submitted one.
        reason: Why the end is not known: detached, wait_timeout, interrupted, unreachable,
            refused, failed.
        error: What went wrong on this side, or what the server refused.
    """
    known = record or {}
    line: dict[str, Any] = {
        "type": "result",
        "schema_version": SCHEMA_VERSION,
        "run_id": run_id,
        "session_id": session_id,
        "outcome": known.get("outcome"),
        "exit_code": exit_code,
        "text": known.get("text", ""),
        "error": error if error is not None else known.get("error"),
        "steered_into": steered_into,
        "reason": reason,
    }
    return line | {key: known[key] for key in _COPIED if key in known}


def error_object(code: str, message: str, *, retryable: bool = False) -> dict[str, Any]:
    """An error as every error of ours looks."""
    return {"code": code, "message": message, "retryable": retryable}
