"""Bodies of HTTP requests and answers that are not records or events (contract 3, CW 2 and 13)."""

from __future__ import annotations

from typing import Any

import attrs

from crush_trio.protocol.events import PermissionRequest
from crush_trio.protocol.jobs import JobOutput as JobOutput  # an answer, as those below
from crush_trio.protocol.jobs import JobRecord
from crush_trio.protocol.messages import Message
from crush_trio.protocol.questions import QuestionRequest
from crush_trio.protocol.runs import Limits, RunRecord
from crush_trio.protocol.sessions import Session

IF_BUSY = ("enqueue", "steer", "interrupt", "reject")
IF_BUSY_WITHOUT_STEERING = ("enqueue", "interrupt", "reject")
PERMISSION_MODES = ("ask", "deny", "allow")
ON_DISCONNECT = ("continue", "cancel")
SANDBOX_MODES = ("off", "read-only", "workspace-write")
GRANT_ACTIONS = ("allow", "allow_session", "deny")


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
    ``compact: false`` leaves the conversation whole however long it gets (R63). ``sandbox`` is one
    of `SANDBOX_MODES`, and counts before the configured one.
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
    compact: bool | None = None
    sandbox: str | None = None


@attrs.frozen
class SummarizeRequest:
    """``POST …/agent/sessions/{s}/summarize``, a body one may leave out (CW 2.5, R65).

    ``wait: false`` answers when it is accepted, as for a prompt, not when it has ended.
    """

    run_id: str | None = None
    if_busy: str | None = None
    model: str | None = None
    limits: Limits | None = None
    client_id: str | None = None
    on_disconnect: str | None = None
    wait: bool = True


@attrs.frozen
class ShellRequest:
    """``POST …/agent/sessions/{s}/shell`` (CW 13.4): a command that a person typed.

    ``session_id`` and ``term_width`` have no effect: the path names the session, and the command
    has no terminal. ``wait`` is as in `SummarizeRequest`.
    """

    command: str = ""
    session_id: str = ""
    term_width: int | None = None
    run_id: str | None = None
    if_busy: str | None = None
    limits: Limits | None = None
    client_id: str | None = None
    on_disconnect: str | None = None
    wait: bool = True


@attrs.frozen
class ShellAnswer:
    """How a command ended (CW 13.4); ``outcome`` and ``run_id`` are additions."""

    output: str
    exit_code: int
    run_id: str
    outcome: str


@attrs.frozen
class SubscribeFrame:
    """``{"type": "subscribe"}`` on ``GET /v1/ws``: the parameters of a workspace's own stream.

    ``after`` is a sequence number, ``now`` or ``start``; ``kinds`` a list with commas.
    """

    workspace_id: str
    type: str = "subscribe"
    after: Any = None
    epoch: str | None = None
    session_id: str | None = None
    kinds: str | None = None
    detail: str | None = None
    client_id: str | None = None


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
class RefreshModels:
    """``POST /v1/models/refresh``: where from; ``None`` leaves it to the configuration."""

    url: str | None = None


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
    """``GET /v1/version`` (CW 1.4), with the protocol's major number and the server's identity.

    ``process_control`` says what keeps a command's processes together: ``cgroup``, ``subreaper``,
    or ``process_group`` (macOS).
    """

    version: str
    commit: str
    build_id: str
    go_version: str
    platform: str
    protocol: int
    server_id: str
    pid: int
    process_control: str = ""


@attrs.frozen
class Health:
    """``GET /v1/health``: whether the server takes prompts, and what it does now."""

    status: str
    open_workspaces: int
    open_runs: int
    subscribers: int


@attrs.frozen
class PermissionEcho:
    """A permission request as an answer sends it back; what is left out is not compared."""

    id: str = ""
    session_id: str | None = None
    tool_call_id: str | None = None
    tool_name: str | None = None
    description: str | None = None
    action: str | None = None
    params: Any = None
    path: str | None = None
    why: str | None = None
    covers: str | None = None
    digest: str | None = None


@attrs.frozen
class PermissionGrant:
    """``POST …/permissions/grant``: ``action`` is one of `GRANT_ACTIONS`.

    ``message`` goes to the model with a denial. ``digest`` is that of the request as it was shown;
    it may stand in ``permission`` as well.
    """

    permission: PermissionEcho = PermissionEcho()
    action: str = ""
    message: str = ""
    digest: str | None = None


@attrs.frozen
class Resolution:
    """Whether an answer decided; if not, how the request had ended and who decided that.

    ``ending`` is allowed, allowed_session, denied, answered, cancelled, expired or withdrawn;
    ``None`` if no such request is known.
    """

    resolved: bool
    ending: str | None = None
    decided_by: str | None = None
    decided_at_ms: int | None = None


@attrs.frozen
class SessionGrant:
    """Something that was allowed "for this session"; ``covers`` says in words what.

    ``scope`` is what it is bound to besides tool, action and path: ``command:…`` or
    ``background:…`` with the command, ``host:…``, ``call:…`` with a digest, or nothing.
    """

    id: str
    tool_name: str
    action: str
    path: str
    scope: str
    covers: str
    granted_by: str
    granted_at_ms: int


@attrs.frozen
class SessionGrants:
    """All of them of one session, the oldest first."""

    grants: tuple[SessionGrant, ...]


@attrs.frozen
class PendingPermission:
    """A permission request that waits: for ``age_s`` seconds, and for ``deadline_s`` more."""

    request: PermissionRequest
    run_id: str
    age_s: float
    deadline_s: float
    workspace_id: str = ""


@attrs.frozen
class PendingQuestion:
    """A batch of questions that waits, as `PendingPermission`."""

    request: QuestionRequest
    run_id: str
    age_s: float
    deadline_s: float
    workspace_id: str = ""


@attrs.frozen
class Snapshot:
    """The state of a session or a workspace, consistent at ``seq``; partial text is included.

    ``session`` and ``messages`` are set for one session, ``sessions`` for a workspace. ``jobs`` are
    the background jobs that run.
    """

    seq: int
    epoch: str
    runs: tuple[RunRecord, ...]
    permissions: tuple[PendingPermission, ...] = ()
    questions: tuple[PendingQuestion, ...] = ()
    jobs: tuple[JobRecord, ...] = ()
    session: Session | None = None
    sessions: tuple[Session, ...] | None = None
    messages: tuple[Message, ...] | None = None


@attrs.frozen
class ErrorBody:
    """Every error answer: one sentence, a stable code, and whether a retry may help."""

    message: str
    code: str
    retryable: bool
