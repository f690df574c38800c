"""A chat server on loopback that speaks Chat Completions: raw sockets, threads, no framework."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import attrs

Json = dict[str, Any]


@attrs.frozen
class Asked:
    """One request: its path, its headers in lower case, its body."""

    path: str
    headers: dict[str, str]
    body: Json

    @property
    def key(self) -> str:
        """What it showed as its key."""
        return self.headers.get("authorization", "").removeprefix("Bearer ")

    @property
    def is_title(self) -> bool:
        """Whether it asks for a title: such a request offers no tools."""
        return "tools" not in self.body

    @property
    def last(self) -> Json:
        """Its last message."""
        last: Json = self.body["messages"][-1]
        return last


Answer = tuple[int, Sequence[Json] | Json]
"""A status, and the chunks of a stream or the JSON of an error."""


def chunk(finish: str | None = None, **delta: Any) -> Json:
    """One chunk of a streamed answer."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "choices": [choice]}


def says(*words: str, usage: tuple[int, int] = (10, 5)) -> Answer:
    """An answer of these words."""
    counted = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return 200, [
        *(chunk(content=word) for word in words),
        chunk("stop"),
        {"choices": [], "usage": counted},
    ]


def calls(name: str, arguments: Json) -> Answer:
    """A call of a tool."""
    call = {"index": 0, "id": "call_1", "type": "function"}
    call["function"] = {"name": name, "arguments": json.dumps(arguments)}
    return 200, [chunk(tool_calls=[call]), chunk("tool_calls")]


def fails(status: int, message: str, **more: Any) -> Answer:
    """An error answer."""
    return status, {"error": {"message": message, **more}}


@attrs.define(eq=False)
class ModelServer:
    """Answers each prompt with the next of ``answers``, titles with ``title``.

    ``models`` are its own list, ``others`` its answers at further paths; with a ``key`` whoever
    shows another one gets 401.
    """

    listener: socket.socket
    answers: list[Answer | Callable[[Asked], Answer]] = attrs.field(factory=list)
    models: tuple[str, ...] = ("tiny", "little")
    key: str = ""
    title: str = "Marmots counted"
    owned_by: str = ""
    others: dict[str, Json] = attrs.field(factory=dict)
    asked: list[Asked] = attrs.field(factory=list)

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self.listener.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """What a configuration calls ``base_url``."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def prompts(self) -> list[Asked]:
        """The requests for answers, without those for titles and lists."""
        return [each for each in self.asked if each.body and not each.is_title]

    @property
    def titles(self) -> list[Asked]:
        """The requests for titles."""
        return [each for each in self.asked if each.body and each.is_title]

    def serve(self) -> None:
        """Take connections until the listener is closed."""
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._speak, args=(peer,), daemon=True).start()

    def _speak(self, peer: socket.socket) -> None:
        with suppress(OSError), peer, peer.makefile("rb") as stream:
            while (asked := _read(stream)) is not None:
                self.asked.append(asked)
                status, answer = self._answer(asked)
                peer.sendall(_written(status, answer))

    def _answer(self, asked: Asked) -> Answer:
        if self.key and asked.key != self.key:
            return fails(401, f"Incorrect API key provided: {asked.key}", code="invalid_api_key")
        if asked.path.endswith("/models"):
            data = [{"id": name, "owned_by": self.owned_by} for name in self.models]
            return 200, {"object": "list", "data": data}
        if asked.path in self.others:
            return 200, self.others[asked.path]
        if not asked.body:
            return fails(404, "no such path")
        if asked.is_title:
            return says(self.title)
        answer = self.answers.pop(0) if self.answers else says("Hello.")
        return answer(asked) if callable(answer) else answer


def _read(stream: Any) -> Asked | None:
    line = stream.readline().decode("latin-1").split()
    if len(line) < 2:
        return None
    headers: dict[str, str] = {}
    while (field := stream.readline().decode("latin-1").strip()) != "":
        name, _, value = field.partition(":")
        headers[name.lower()] = value.strip()
    raw = stream.read(int(headers.get("content-length", "0")))
    return Asked(line[1].partition("?")[0], headers, json.loads(raw) if raw else {})


def _written(status: int, answer: Sequence[Json] | Json) -> bytes:
    if isinstance(answer, dict):
        kind, body = "application/json", json.dumps(answer).encode()
    else:
        kind = "text/event-stream"
        events = [f"data: {json.dumps(each)}\n\n" for each in answer]
        body = "".join([*events, "data: [DONE]\n\n"]).encode()
    head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


@contextmanager
def model_server(**more: Any) -> Iterator[ModelServer]:
    """A server that answers for as long as the block lasts."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = ModelServer(listener, **more)
        thread = threading.Thread(target=server.serve, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)
