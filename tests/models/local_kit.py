"""Tiny model servers on loopback that answer what the real ones are documented to answer."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import attrs
import h11
import orjson
import trio

from crush_trio.models.local.owners import Listener


@attrs.define(eq=False)
class Server:
    """What it answers by path, and what it was asked: ``(path, host header, body)``.

    An answer that is bytes is sent as it is, without HTTP; `HANGS` never comes; an int is a status,
    and a pair a status with an answer.
    """

    port: int
    answers: Mapping[str, Any]
    asked: list[tuple[str, str, Any]] = attrs.field(factory=list)
    connections: int = 0


HANGS = object()


@asynccontextmanager
async def serving(
    answers: Mapping[str, Any],
    host: str = "127.0.0.1",
    before: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint,
) -> AsyncIterator[Server]:
    """A running server on a port of its own; ``before`` is awaited before each answer."""
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host=host)
        server = Server(listener.socket.getsockname()[1], answers)

        async def handle(stream: trio.SocketStream) -> None:
            server.connections += 1
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await _answer(server, stream, before)
            await stream.aclose()

        await nursery.start(trio.serve_listeners, handle, [listener])
        try:
            yield server
        finally:
            nursery.cancel_scope.cancel()


async def _answer(
    server: Server, stream: trio.SocketStream, before: Callable[[], Awaitable[None]]
) -> None:
    connection = h11.Connection(h11.SERVER)
    path, host, body = "", "", b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some(65536)))
        elif isinstance(event, h11.Request):
            path, host = event.target.decode(), dict(event.headers)[b"host"].decode()
        elif isinstance(event, h11.Data):
            body += event.data
        else:
            break
    server.asked.append((path, host, orjson.loads(body) if body else None))
    await before()
    answer = server.answers.get(path, 404)
    if callable(answer):
        answer = answer(orjson.loads(body))
    if answer is HANGS:
        await trio.sleep_forever()
    if type(answer) is bytes:
        await stream.send_all(answer)
        return
    status, answer = answer if type(answer) is tuple else (200, answer)
    status, text = (answer, b"") if type(answer) is int else (status, orjson.dumps(answer))
    head = f"HTTP/1.1 {status} X\r\nlocation: http://127.0.0.1:1/\r\n".encode()
    await stream.send_all(head + b"content-length: %d\r\n\r\n%s" % (len(text), text))


def everybody(uid: int | None = None, *ports: int) -> tuple[Listener, ...]:
    """Listeners on 127.0.0.1 at these ports, which belong to a user (default: to us)."""
    return tuple(Listener("127.0.0.1", port, os.getuid() if uid is None else uid) for port in ports)


# --- what the documentation of each server shows, shortened ---------------------------------

OLLAMA_SHOWN: dict[str, dict[str, Any]] = {
    "qwen3:8b": {
        "parameters": 'num_ctx                        16384\nstop                           "<|im"',
        "details": {"family": "qwen3", "parameter_size": "8.2B"},
        "model_info": {"general.architecture": "qwen3", "qwen3.context_length": 40960},
        "capabilities": ["completion", "tools", "thinking"],
    },
    "gemma3:4b": {
        "model_info": {"general.architecture": "gemma3", "gemma3.context_length": 131072},
        "capabilities": ["completion", "vision"],
    },
    "llama3.2:latest": {
        "model_info": {"llama.context_length": 131072, "llama.block_count": 28},
        "capabilities": ["completion", "tools"],
    },
    "mxbai:latest": {"capabilities": ["embedding"], "model_info": {"bert.context_length": 512}},
}
OLLAMA: dict[str, Any] = {
    "/api/tags": {
        "models": [
            {"name": "gpt-oss:120b-cloud", "model": "gpt-oss:120b-cloud", "size": 384},
            {"name": "far:1b", "remote_host": "https://ollama.com:443"},
            {"name": "farther:1b", "remote_model": "farther"},
            *({"name": name, "model": name, "details": {}} for name in OLLAMA_SHOWN),
        ]
    },
    "/api/ps": {"models": [{"name": "qwen3:8b", "size_vram": 6, "context_length": 8192}]},
    "/api/show": lambda body: OLLAMA_SHOWN.get(body["model"], {}),
}
LMSTUDIO_V0: dict[str, Any] = {
    "/api/v0/models": {
        "object": "list",
        "data": [
            {
                "id": "qwen2-vl-7b-instruct",
                "object": "model",
                "type": "vlm",
                "state": "not-loaded",
                "max_context_length": 32768,
            },
            {
                "id": "granite-3.0-2b-instruct",
                "object": "model",
                "type": "llm",
                "state": "loaded",
                "max_context_length": 131072,
                "loaded_context_length": 4096,
                "capabilities": ["tool_use"],
            },
            {
                "id": "text-embedding-nomic-embed-text-v1.5",
                "object": "model",
                "type": "embeddings",
                "state": "not-loaded",
                "max_context_length": 2048,
            },
        ],
    }
}
LMSTUDIO_V1: dict[str, Any] = {
    "/api/v1/models": {
        "models": [
            {
                "type": "llm",
                "key": "google/gemma-3-4b",
                "loaded_instances": [],
                "max_context_length": 131072,
                "capabilities": {"vision": True, "trained_for_tool_use": False},
            },
            {
                "type": "llm",
                "key": "qwen/qwen3.5-9b",
                "loaded_instances": [
                    {"id": "qwen/qwen3.5-9b", "config": {"context_length": 65536}}
                ],
                "max_context_length": 262144,
                "capabilities": {"vision": False, "trained_for_tool_use": True},
            },
            {"type": "embedding", "key": "text-nomic", "max_context_length": 2048},
        ]
    }
}
LLAMACPP: dict[str, Any] = {
    "/v1/models": {
        "object": "list",
        "data": [
            {
                "id": "ggml-org/gemma-3-4b-it-GGUF",
                "object": "model",
                "owned_by": "llamacpp",
                "meta": {"n_ctx_train": 131072, "n_params": 3880099328},
            }
        ],
    },
    "/props": {
        "default_generation_settings": {"n_ctx": 65536},
        "total_slots": 4,
        "modalities": {"vision": True, "audio": False},
        "chat_template_caps": {"supports_tools": True, "supports_tool_calls": True},
    },
}
VLLM: dict[str, Any] = {
    "/v1/models": {
        "object": "list",
        "data": [
            {
                "id": "Qwen/Qwen3-8B",
                "object": "model",
                "owned_by": "vllm",
                "root": "Qwen/Qwen3-8B",
                "max_model_len": 40960,
            }
        ],
    }
}
