"""Bodies of HTTP requests and answers that are not records or events (contract 3, CW 2 and 13)."""

from __future__ import annotations

from typing import Any

import attrs

from crush_trio.protocol.events import PermissionRequest
from crush_trio.protocol.messages import Message
from crush_trio.protocol.runs import Limits, RunRecord
from crush_trio.protocol.sessions import Session

IF_BUSY = ("enqueue", "steer", "interrupt", "reject")
PERMISSION_MODES = ("ask", "deny", "allow")
ON_DISCONNECT = ("continue", "cancel")


@attrs.frozen
class Attachment:
    """A file that goes with a prompt; ``content`` is base64 text."""

    content: str
    file_path: str = ""
    file_name: str = ""
    mime_type: str = ""


@attrs.frozen
class PromptRequest:
    """``POST …/{w}/agent``: one prompt for one session.

    ``if_busy`` defaults to enqueue with a ``run_id`` and to steer without one. ``model`` is
    ``provider/model``. ``allow_tools`` and ``deny_tools`` are permission patterns (contract 7).
    ``record`` is the absolute path of a script file to be written, which must not exist.
    """

    session_id: str = ""
    prompt: str = ""
    attachments: tuple[Attachment, ...] = ()
    run_id: str | None = None
    if_busy: str | None = None
    model: str | None = None
    limits: Limits | None = None
    permission_mode: str | None = None
    allow_tools: tuple[str, ...] = ()
    deny_tools: tuple[str, ...] = ()
    client_id: str | None = None
    on_disconnect: str | None = None
    record: str | None = None


@attrs.frozen
class EditRequest:
    """``PATCH …/runs/{r}``: a new prompt and/or a new position (0 = next) for a queued run."""

    prompt: str | None = None
    position: int | None = None


@attrs.frozen
class CreateWorkspace:
    """``POST /v1/workspaces``: the directory to work in; the rest is CW 13.1."""

    path: str = ""
    client_id: str | None = None
    yolo: bool = False
    env: tuple[str, ...] = ()
    data_dir: str = ""
    debug: bool = False
    version: str = ""
    channels: tuple[str, ...] = ()
    id: str = ""


@attrs.frozen
class CreateSession:
    """``POST …/sessions``: a title; other keys are ignored (CW 2.4)."""

    title: str = ""


@attrs.frozen
class ControlRequest:
    """``POST /v1/control``: ``shutdown`` or ``shutdown_if_idle``; ``by`` marks our own CLI."""

    command: str = ""
    by: str = ""


@attrs.frozen
class WorkspaceInfo:
    """A workspace as answered by the server (CW 13.1, 10.5).

    ``notices`` are sentences about its configuration: what is unknown, and what does not count
    because the directory is not trusted, or why the configuration cannot be used at all.
    """

    id: str
    path: str
    config: dict[str, Any]
    version: str
    yolo: bool = False
    data_dir: str = ""
    env: tuple[str, ...] = ()
    open: bool = True
    ignored: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


@attrs.frozen
class VersionInfo:
    """``GET /v1/version`` (CW 1.4), with the protocol's major number and the server's identity."""

    version: str
    commit: str
    build_id: str
    go_version: str
    platform: str
    protocol: int
    server_id: str
    pid: int


@attrs.frozen
class Health:
    """``GET /v1/health``: whether the server takes prompts, and what it does now."""

    status: str
    open_workspaces: int
    open_runs: int
    subscribers: int


@attrs.frozen
class PendingPermission:
    """A pending permission request with its age and its deadline, both in seconds."""

    request: PermissionRequest
    run_id: str
    age_s: float
    deadline_s: float


@attrs.frozen
class Snapshot:
    """The state of a session or a workspace, consistent at ``seq``; partial text is included.

    ``session`` and ``messages`` are set for one session, ``sessions`` for a workspace.
    """

    seq: int
    epoch: str
    runs: tuple[RunRecord, ...]
    permissions: tuple[PendingPermission, ...] = ()
    questions: tuple[dict[str, Any], ...] = ()
    session: Session | None = None
    sessions: tuple[Session, ...] | None = None
    messages: tuple[Message, ...] | None = None


@attrs.frozen
class ErrorBody:
    """Every error answer: one sentence, a stable code, and whether a retry may help."""

    message: str
    code: str
    retryable: bool
