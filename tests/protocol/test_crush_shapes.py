"""The shapes of CW 3.5 and 13, with our own values: read, and written again key for key."""

from __future__ import annotations

from typing import Any

import attrs
import orjson
import pytest

from crush_trio.protocol import codec
from crush_trio.protocol import messages as m
from crush_trio.protocol.events import (
    CRUSH_KINDS,
    OWN_KINDS,
    PAYLOAD_CLASS,
    AgentEvent,
    MessageDelta,
    PermissionNotification,
    PermissionRequest,
    Ping,
    ToolOutput,
)
from crush_trio.protocol.ids import new_id
from crush_trio.protocol.requests import CreateWorkspace, ErrorBody, PromptRequest
from crush_trio.protocol.runs import Outcome, RunComplete
from crush_trio.protocol.sessions import FileVersion, Session

SESSION = {
    "id": "s-41", "parent_session_id": "", "title": "Teach the lexer tabs", "message_count": 3,
    "prompt_tokens": 950, "completion_tokens": 71, "summary_message_id": "", "cost": 0.25,
    "created_at": 1790000000, "updated_at": 1790000031, "is_busy": False, "attached_clients": 0,
}  # fmt: skip
TODO = {"content": "Run them", "status": "pending", "active_form": "Running them"}
ASSISTANT = {
    "id": "m-2", "role": "assistant", "session_id": "s-41", "model": "scout", "provider": "offline",
    "created_at": 1790000002, "updated_at": 1790000009,
    "parts": [
        {"type": "reasoning", "data": {"thinking": "Tabs count eight.", "signature": "c2ln",
                                       "started_at": 1790000002, "finished_at": 1790000003}},
        {"type": "text", "data": {"text": "I look at the table."}},
        {"type": "tool_call", "data": {"id": "c-1", "name": "view",
                                       "input": "{\"file_path\":\"tab.py\"}", "finished": True}},
        {"type": "finish", "data": {"reason": "tool_use", "time": 1790000004}},
    ],
}  # fmt: skip
USER = {
    "id": "m-1", "role": "user", "session_id": "s-41", "model": "", "provider": "",
    "created_at": 1790000000, "updated_at": 1790000000,
    "parts": [
        {"type": "text", "data": {"text": "Which font is this?"}},
        {"type": "binary", "data": {"Path": "/srv/shop/a.png", "MIMEType": "image/png",
                                    "Data": "AAEC"}},
        {"type": "image_url", "data": {"url": "https://example.org/b.png"}},
        {"type": "finish", "data": {"reason": "stop", "time": 0}},
    ],
}  # fmt: skip
TOOL = {
    "id": "m-3", "role": "tool", "session_id": "s-41", "model": "", "provider": "",
    "created_at": 1790000004, "updated_at": 1790000004,
    "parts": [
        {"type": "tool_result", "data": {"tool_call_id": "c-1", "name": "view", "content": "8\n",
                                         "metadata": "", "is_error": False}},
        {"type": "finish", "data": {"reason": "stop", "time": 0}},
    ],
}  # fmt: skip
SHELL = {
    "id": "m-4", "role": "user", "session_id": "s-41", "model": "", "provider": "",
    "created_at": 1790000005, "updated_at": 1790000005,
    "parts": [
        {"type": "shell_command", "data": {"command": "pwd", "output": "/srv/shop\n",
                                           "exit_code": 0}},
        {"type": "finish", "data": {"reason": "stop", "time": 0}},
    ],
}  # fmt: skip
CANCELLED = {
    "id": "m-5", "role": "assistant", "session_id": "s-41", "model": "scout", "provider": "offline",
    "created_at": 1790000006, "updated_at": 1790000006, "is_summary_message": True,
    "parts": [{"type": "finish", "data": {"reason": "canceled", "time": 1790000006,
                                          "message": "Stopped", "details": "by its owner"}}],
}  # fmt: skip
PERMISSION = {
    "id": "p-1", "session_id": "s-41", "tool_call_id": "c-2", "tool_name": "bash",
    "description": "Execute command: make", "action": "execute",
    "params": {"command": "make", "run_in_background": False, "auto_background_after": 0},
    "path": "/srv/shop",
}  # fmt: skip
PROCESSES = {"started": 0, "killed": 0, "left": []}
USAGE = {
    "input_tokens": 0, "output_tokens": 0, "cache_read_tokens": 0, "cache_write_tokens": 0,
}  # fmt: skip
ENDED = {
    "session_id": "s-41", "run_id": "r-1", "message_id": "m-2", "text": "Done.",
    "outcome": "completed", "usage": USAGE, "processes": PROCESSES,
}  # fmt: skip
STOPPED = {
    "session_id": "s-41", "run_id": "r-2", "message_id": "", "error": "context canceled",
    "cancelled": True, "outcome": "cancelled", "usage": USAGE, "processes": PROCESSES,
}  # fmt: skip
FILE = {
    "id": "f-1", "session_id": "s-41", "path": "/srv/shop/tab.py", "content": "8\n", "version": 1,
    "created_at": 1790000007, "updated_at": 1790000007,
}  # fmt: skip

SAME_BOTH_WAYS: list[tuple[type[Any], dict[str, Any]]] = [
    (Session, SESSION),
    (Session, {**SESSION, "todos": [TODO]}),
    (m.Message, ASSISTANT),
    (m.Message, USER),
    (m.Message, TOOL),
    (m.Message, SHELL),
    (m.Message, CANCELLED),
    (m.Message, {**USER, "parts": [], "run_id": "r-1"}),
    (m.Message, {**CANCELLED, "run_id": "r-3", "leaves_out": ["r-1"], "covers": ["r-4", "r-5"]}),
    (PermissionRequest, PERMISSION),
    (PermissionNotification, {"tool_call_id": "c-2", "granted": True, "denied": False}),
    (RunComplete, ENDED),
    (RunComplete, STOPPED),
    (AgentEvent, {"type": "agent_finished", "session_id": "s-41", "session_title": "Tabs"}),
    (AgentEvent, {"type": "error", "error": "no such session", "run_id": "r-9"}),
    (FileVersion, FILE),
    (ErrorBody, {"message": "workspace not found", "code": "not_found", "retryable": False}),
]


@pytest.mark.parametrize(("cls", "shape"), SAME_BOTH_WAYS)
def test_a_shape_is_read_and_written_again_key_for_key(
    cls: type[Any], shape: dict[str, Any]
) -> None:
    assert orjson.loads(codec.encode(codec.decode(orjson.dumps(shape), cls))) == shape


KIND_PAYLOADS: dict[str, dict[str, Any]] = {
    "message": ASSISTANT,
    "session": SESSION,
    "file": FILE,
    "run_complete": ENDED,
    "agent_event": {"type": "agent_finished", "session_id": "s-41", "session_title": "Tabs"},
    "permission_request": PERMISSION,
    "permission_notification": {"tool_call_id": "c-2", "granted": False, "denied": True},
    "question_batch_request": {
        "id": "q-1", "session_id": "s-41", "tool_call_id": "c-3",
        "questions": [{"id": "q-1-a", "type": "yes_no", "question": "Rewrite it?"}],
    },
    "question_batch_notification": {"batch_id": "q-1"},
    "lsp_event": {"type": "diagnostics_changed", "name": "pylsp", "state": 2},
    "mcp_event": {"type": "state_changed", "name": "tracker", "state": "needs auth"},
    "skills_event": {"states": None},
    "config_changed": {"workspace_id": "w-1"},
    "update_available": {
        "current_version": "v1", "latest_version": "v2", "is_development": False,
    },
    "retry": {
        "run_id": "r-1", "attempt": 1, "max_attempts": 4, "delay_s": 0.5, "cause": "overloaded",
    },
    "run": {
        "id": "r-1", "workspace_id": "w-1", "session_id": "s-41", "kind": "prompt",
        "parent_run": None, "prompt": "Which font is this?", "state": "running", "outcome": None,
        "error": None, "waiting_on": "model", "accept_seq": 7, "created_at_ms": 1790000000123,
        "started_at_ms": 1790000000130, "finished_at_ms": None, "message_id": None, "text": "",
        "model": "scout", "provider": "offline", "usage": USAGE, "cost_usd": None, "steps": 1,
        "tool_calls": 0, "denied": 0, "steered_into": None, "cancelled_by": None,
        "processes": PROCESSES, "first_seq": 40, "last_seq": 0, "deleted": False,
        "sandbox": "off",
    },
    "job": {
        "job_id": "00A", "workspace_id": "w-1", "session_id": "s-41", "origin_run": "r-1",
        "tool_call_id": "c-2", "command": "make serve", "description": "Serve", "working_dir": "/s",
        "started_at_ms": 1790000000130, "state": "exited", "exit_code": 0,
        "ended_at_ms": 1790000000190, "output_bytes": 12, "left": [],
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", [*CRUSH_KINDS, *OWN_KINDS])
def test_an_event_of_each_kind_is_read_and_written_again_key_for_key(kind: str) -> None:
    envelope = {
        "seq": 812,
        "ts_ms": 1790000009000,
        "workspace_id": "w-1",
        "type": kind,
        "payload": {"type": "updated", "payload": KIND_PAYLOADS[kind]},
    }
    (event,) = codec.decode_frames(orjson.dumps([envelope]))
    assert codec.frame_to_json(event) == envelope
    assert type(event.payload) is PAYLOAD_CLASS.get(kind, dict)  # type: ignore[union-attr]  # an Event


def test_an_agent_event_from_crush_is_read_without_its_empty_message() -> None:
    raw = {"type": "agent_finished", "message": {"parts": [], "id": ""}, "session_id": "s-41"}
    assert codec.from_json(raw, AgentEvent) == AgentEvent("agent_finished", session_id="s-41")


def test_a_prompt_as_crush_sends_it_is_read() -> None:
    body = {
        "session_id": "s-41",
        "run_id": "r-1",
        "prompt": "Which font is this?",
        "attachments": [
            {
                "content": "AAEC",
                "file_path": "/srv/shop/a.png",
                "file_name": "a.png",
                "mime_type": "image/png",
            }
        ],
    }
    request, ignored = codec.decode_body(orjson.dumps(body), PromptRequest)
    assert ignored == ()
    assert request.attachments[0].file_name == "a.png"
    assert {key: codec.to_json(request)[key] for key in body} == body


def test_a_create_as_crush_sends_it_is_read_with_its_nulls_and_its_unknown_keys_named() -> None:
    body = (
        b'{"id":"","path":"/srv/shop","data_dir":"","version":"v9","client_id":"c-1",'
        b'"env":["A=1"],"yolo":true,"channels":null,"zeal":1,"hue":null}'
    )
    request, ignored = codec.decode_body(body, CreateWorkspace)
    assert request == CreateWorkspace(
        path="/srv/shop", client_id="c-1", yolo=True, env=("A=1",), version="v9"
    )
    assert ignored == ("hue", "zeal")


@pytest.mark.parametrize("body", [b"", b" \n", b"{}"])
def test_an_empty_body_is_an_empty_object(body: bytes) -> None:
    assert codec.decode_body(body, PromptRequest) == (PromptRequest(), ())


NO_IDS: Any = "i"
ZERO_VALUES: list[tuple[Any, set[str]]] = [
    (m.TextPart(""), {"text"}),
    (m.ReasoningPart(""), {"thinking", "signature"}),
    (m.ImageUrlPart(""), {"url"}),
    (m.BinaryPart("", "", ""), {"Path", "MIMEType", "Data"}),
    (m.ToolCallPart("", "", ""), {"id", "name", "input"}),
    (
        m.ToolResultPart("", "", ""),
        {"tool_call_id", "name", "content", "metadata", "is_error"},
    ),
    (m.FinishPart("", 0), {"reason", "time"}),
    (m.ShellCommandPart("", "", 0), {"command", "output", "exit_code"}),
    (
        m.Message(NO_IDS, "", NO_IDS, ()),
        {"id", "role", "session_id", "parts", "model", "provider", "created_at", "updated_at"},
    ),
    (Session(NO_IDS), {field.name for field in attrs.fields(Session)} - {"todos"}),
    (
        RunComplete(NO_IDS, NO_IDS, Outcome.LOST),
        {"session_id", "run_id", "message_id", "outcome", "usage", "processes"},
    ),
    (AgentEvent("error"), {"type"}),
    (
        MessageDelta("", "", "", 0, "text", 0, ""),
        {"message_id", "session_id", "run_id", "index", "part", "offset", "text"},
    ),
    (ToolOutput("", "", "", 0, ""), {"tool_call_id", "session_id", "stream", "offset", "text"}),
    (Ping(), set()),
]


@pytest.mark.parametrize(("value", "keys"), ZERO_VALUES)
def test_zero_values_are_written_where_cw_says_always_and_left_out_where_it_says_opt(
    value: Any, keys: set[str]
) -> None:
    assert set(codec.to_json(value)) == keys


def test_the_fixed_part_of_a_delta_is_small() -> None:
    delta = MessageDelta(new_id(), new_id(), new_id(), 3, "text", 12_345, "")
    assert len(orjson.dumps(codec.frame_to_json(delta))) <= 160
