"""A short answer in each protocol, in the pieces that matter: where it can be cut."""

from __future__ import annotations

from typing import Any

import attrs
import orjson

from crush_trio.models.dialects import DIALECTS


@attrs.frozen
class Short:
    """An answer that says ``Hé🦀`` and asks for a tool; each list is of whole events."""

    begin: tuple[bytes, ...]
    text: tuple[bytes, ...]
    arguments: tuple[bytes, ...]
    """The tool call, up to the middle of its arguments; empty where they come whole."""
    finish: tuple[bytes, ...]
    """The rest of the tool call, and why the answer ends."""
    done: tuple[bytes, ...]
    """What says that nothing more comes; empty where only the end of the body does."""
    error: bytes
    """The provider reports in the stream that it is overloaded."""

    @property
    def whole(self) -> bytes:
        """All of it."""
        parts = (self.begin, self.text, self.arguments, self.finish, self.done)
        return b"".join(piece for part in parts for piece in part)


def _event(name: str, data: Any) -> bytes:
    begin = f"event: {name}\n".encode() if name else b""
    return begin + b"data: " + orjson.dumps(data) + b"\n\n"


def _named(kind: str, **rest: Any) -> bytes:
    return _event(kind, {"type": kind, **rest})


def _chat() -> Short:
    def choice(delta: dict[str, Any], finish: str | None = None) -> bytes:
        return _event("", {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    def call(arguments: str, **first: Any) -> bytes:
        function = {"arguments": arguments, **({"name": "view"} if first else {})}
        return choice({"tool_calls": [{"index": 0, "function": function, **first}]})

    return Short(
        begin=(choice({"role": "assistant", "content": ""}),),
        text=(choice({"content": "H"}), choice({"content": "é🦀"})),
        arguments=(call("", id="c1", type="function"), call('{"file_path":')),
        finish=(call('"x"}'), choice({}, "tool_calls")),
        done=(b"data: [DONE]\n\n",),
        error=_event("", {"error": {"message": "overloaded", "type": "server_error", "code": 503}}),
    )


def _responses() -> Short:
    item = {"type": "message", "id": "m1", "role": "assistant", "content": []}
    call = {"type": "function_call", "id": "f1", "call_id": "c1", "name": "view", "arguments": ""}
    arguments = '{"file_path":"x"}'
    said = {**item, "content": [{"type": "output_text", "text": "Hé🦀", "annotations": []}]}
    called = {**call, "arguments": arguments, "status": "completed"}
    response = {"id": "r1", "object": "response", "model": "m-1", "output": []}
    place = {"item_id": "m1", "output_index": 0, "content_index": 0}
    return Short(
        begin=(
            _named("response.created", response={**response, "status": "in_progress"}),
            _named("response.output_item.added", output_index=0, item=item),
        ),
        text=(
            _named("response.output_text.delta", **place, delta="H"),
            _named("response.output_text.delta", **place, delta="é🦀"),
            _named("response.output_item.done", output_index=0, item=said),
        ),
        arguments=(
            _named("response.output_item.added", output_index=1, item=call),
            _named(
                "response.function_call_arguments.delta",
                item_id="f1",
                output_index=1,
                delta='{"file_path":',
            ),
        ),
        finish=(
            _named(
                "response.function_call_arguments.delta", item_id="f1", output_index=1, delta='"x"}'
            ),
            _named(
                "response.function_call_arguments.done",
                item_id="f1",
                output_index=1,
                arguments=arguments,
            ),
            _named("response.output_item.done", output_index=1, item=called),
        ),
        done=(
            _named(
                "response.completed",
                response={**response, "status": "completed", "output": [said, called]},
            ),
        ),
        error=_named("error", code="server_is_overloaded", message="overloaded", param=None),
    )


def _anthropic() -> Short:
    message = {"id": "m1", "type": "message", "role": "assistant", "model": "m-1", "content": []}
    usage = {"input_tokens": 3, "output_tokens": 1}
    block = {"type": "tool_use", "id": "c1", "name": "view", "input": {}}

    def delta(index: int, kind: str, **rest: Any) -> bytes:
        return _named("content_block_delta", index=index, delta={"type": kind, **rest})

    return Short(
        begin=(
            _named("message_start", message={**message, "usage": usage}),
            _named("content_block_start", index=0, content_block={"type": "text", "text": ""}),
            _named("ping"),
        ),
        text=(
            delta(0, "text_delta", text="H"),
            delta(0, "text_delta", text="é🦀"),
            _named("content_block_stop", index=0),
        ),
        arguments=(
            _named("content_block_start", index=1, content_block=block),
            delta(1, "input_json_delta", partial_json='{"file_path":'),
        ),
        finish=(
            delta(1, "input_json_delta", partial_json='"x"}'),
            _named("content_block_stop", index=1),
            _named(
                "message_delta",
                delta={"stop_reason": "tool_use", "stop_sequence": None},
                usage={"output_tokens": 9},
            ),
        ),
        done=(_named("message_stop"),),
        error=_named("error", error={"type": "overloaded_error", "message": "Overloaded"}),
    )


def _gemini() -> Short:
    def part(*parts: dict[str, Any], finish: str = "") -> bytes:
        candidate = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
        return _event(
            "", {"candidates": [{**candidate, **({"finishReason": finish} if finish else {})}]}
        )

    call = {"functionCall": {"name": "view", "args": {"file_path": "x"}}}
    return Short(
        begin=(),
        text=(part({"text": "H"}), part({"text": "é🦀"})),
        arguments=(),
        finish=(part(call), part({"text": ""}, finish="STOP")),
        done=(),
        error=_event("", {"error": {"code": 503, "message": "busy", "status": "UNAVAILABLE"}}),
    )


SHORT = {
    "openai-chat": _chat(),
    "openai-responses": _responses(),
    "anthropic": _anthropic(),
    "gemini": _gemini(),
}
assert SHORT.keys() == DIALECTS.keys()
