"""The exit codes: one table, printed by ``--help`` and frozen (contract 6, G13)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

COMPLETED: Final = 0
FAILED: Final = 1
USAGE: Final = 2
DENIED: Final = 3
CONFIGURATION: Final = 4
CANCELLED: Final = 5
LIMITED: Final = 6
UNREACHABLE: Final = 7
BUSY: Final = 8
LOST: Final = 9
WAIT_TIMEOUT: Final = 124
HUNG_UP: Final = 129
INTERRUPTED: Final = 130
STDOUT_CLOSED: Final = 141
TERMINATED: Final = 143

TABLE: Final = (
    (COMPLETED, "completed"),
    (FAILED, "failed"),
    (USAGE, "usage, unknown session or run"),
    (DENIED, "a tool call was denied; the answer is still given"),
    (CONFIGURATION, "configuration, key, model, TLS, no language model"),
    (CANCELLED, "cancelled by somebody else or by a shutdown"),
    (LIMITED, "a limit ended it"),
    (UNREACHABLE, "server unreachable, outcome unknown"),
    (BUSY, "session busy or queue full"),
    (LOST, "lost: the server died while it ran"),
    (WAIT_TIMEOUT, "--wait-timeout passed; the run goes on"),
    (STDOUT_CLOSED, "stdout was closed"),
    (INTERRUPTED, "interrupted (143 terminated, 129 hung up)"),
)
"""Every code of a client command and what it means, in the order of ``--help``."""

_OF_OUTCOME: Final = {
    "completed": COMPLETED,
    "failed": FAILED,
    "denied": DENIED,
    "cancelled": CANCELLED,
    "limited": LIMITED,
    "lost": LOST,
}

CONFIGURATION_CODES: Final = frozenset(
    {
        "config",
        "config_invalid",
        "forbidden",
        "forbidden_origin",
        "key_missing",
        "misdirected",
        "missing_key",
        "model_not_allowed",
        "model_not_found",
        "no_language_model",
        "provider_auth",
        "provider_proxy",
        "provider_tls",
        "provider_url",
        "sandbox_unavailable",
        "tls",
        "tools_unsupported",
        "unauthorized",
        "unknown_model",
        "unknown_provider",
    }
)
"""Error codes, of runs and of refusals, that the user cures in a configuration."""

_OF_STATUS: Final = {401: CONFIGURATION, 403: CONFIGURATION, 421: CONFIGURATION, 429: BUSY}
_OF_REFUSAL: Final = {
    "session_busy": BUSY,
    "session_closing": BUSY,
    "workspace_closing": BUSY,
    "overloaded": BUSY,
    "server_in_use": BUSY,
    "open_runs": BUSY,
    "server_stopping": UNREACHABLE,
    "store_failed": UNREACHABLE,
}


def exit_code(record: Mapping[str, Any]) -> int:
    """The code of a finished run's record; of a steered run give the record it joined.

    An outcome this version does not know is a failure, never a success.
    """
    outcome = record.get("outcome")
    error = record.get("error")
    code = error.get("code") if isinstance(error, dict) else None
    if outcome == "failed" and code in CONFIGURATION_CODES:
        return CONFIGURATION
    return _OF_OUTCOME.get(str(outcome), FAILED)


def refusal_exit_code(status: int, code: str) -> int:
    """The code for a request the server refused with this status and error code."""
    if code in CONFIGURATION_CODES:
        return CONFIGURATION
    if code in _OF_REFUSAL:
        return _OF_REFUSAL[code]
    if status in _OF_STATUS:
        return _OF_STATUS[status]
    return USAGE if 400 <= status < 500 or status == 0 else FAILED


def signal_exit_code(signum: int) -> int:
    """The code of a client that a signal ended, as shells count."""
    return 128 + signum


def epilog() -> str:
    """The table as the last paragraph of ``--help``; ``\\b`` keeps click from joining lines."""
    lines = [f"  {code:>3}  {meaning}" for code, meaning in TABLE]
    return "\b\nExit codes:\n" + "\n".join(lines)
