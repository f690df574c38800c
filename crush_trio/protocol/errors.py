"""Errors meant for a person, sorted by whose doing they are, and the HTTP status of each code."""

from __future__ import annotations

from typing import Final

STATUS: Final[dict[str, int]] = {
    "bad_request": 400,
    "bad_cursor": 400,
    "config_invalid": 400,
    "bad_run_id": 400,
    "prompt_empty": 400,
    "session_required": 400,
    "path_required": 400,
    "path_relative": 400,
    "path_missing": 400,
    "path_unreadable": 400,
    "record_file": 400,
    "unknown_model": 400,
    "unknown_provider": 400,
    "key_missing": 400,
    "no_language_model": 400,
    "command_empty": 400,
    "command_too_long": 400,
    "model_not_allowed": 400,
    "sandbox_unavailable": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "forbidden_origin": 403,
    "forwarded": 403,
    "from_tool": 403,
    "not_found": 404,
    "workspace_not_found": 404,
    "session_not_found": 404,
    "run_not_found": 404,
    "job_not_found": 404,
    "message_not_found": 404,
    "file_not_found": 404,
    "output_not_found": 404,
    "provider_not_found": 404,
    "request_not_found": 404,
    "grant_not_found": 404,
    "method_not_allowed": 405,
    "request_timeout": 408,
    "run_id_conflict": 409,
    "run_not_queued": 409,
    "permission_changed": 409,
    "session_busy": 409,
    "run_cancelled": 409,
    "session_closing": 409,
    "workspace_closing": 409,
    "open_runs": 409,
    "client_retired": 409,
    "client_not_attached": 409,
    "resync_required": 409,
    "server_in_use": 409,
    "body_too_large": 413,
    "unsupported_media_type": 415,
    "misdirected": 421,
    "queue_full": 429,
    "too_many_jobs": 429,
    "too_many_streams": 429,
    "headers_too_large": 431,
    "internal": 500,
    "run_failed": 500,
    "catalogue_unwritable": 500,
    "catalogue_unreachable": 502,
    "catalogue_invalid": 502,
    "server_stopping": 503,
    "store_failed": 503,
    "overloaded": 503,
    "disk_full": 507,
}
"""The HTTP status of every code a refusal may carry (contract 3)."""

RETRYABLE: Final = frozenset(
    {
        "queue_full",
        "session_busy",
        "workspace_closing",
        "server_stopping",
        "store_failed",
        "overloaded",
        "disk_full",
        "catalogue_unreachable",
    }
)
"""Codes for which the same request may succeed later."""


class CrushError(Exception):
    """Raised on purpose and meant for a person: its text is one sentence they can act on."""


class Refused(CrushError):
    """The caller's doing, or a state that forbids the request: nothing was changed.

    Args:
        code: A key of `STATUS`.
        message: One sentence that says what to do.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def status(self) -> int:
        """The HTTP status that goes with the code."""
        return STATUS[self.code]

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later."""
        return self.code in RETRYABLE


class DecodeError(CrushError):
    """The other side's doing: bytes that are not what was agreed.

    The text names each wrong place by its path, as in ``$.limits.max_steps: expected int``.
    """


class StoreError(CrushError):
    """The machine's doing: disk, lock or corruption.

    Args:
        code: ``store_failed``, ``disk_full``, or ``overloaded``; when it cannot be opened also
            ``data_dir_in_use``, ``store_corrupt``, ``store_newer`` or ``store_unwritable``.
        message: One sentence that says what happened and to which file.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class ConfigError(CrushError):
    """A wrong key, type or value: one sentence with file, path and expectation."""


class InvalidTransition(AssertionError):
    """A bug of ours in the life of a run. Nothing catches it."""
