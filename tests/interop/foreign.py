"""The foreign model server as a process of its own, and the four protocols it is asked in."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

Json = dict[str, Any]

HERE = Path(__file__).parent
PROGRAM = HERE / "node_modules/@copilotkit/aimock/dist/cli.js"
KEY = "sk-interop-0123456789"
PIECE_CHARS = 8
"""Text and arguments come in pieces of this size."""


def missing() -> str:
    """Why the server cannot be started here; "" if it can."""
    if shutil.which("node") is None:
        return "there is no node here"
    if not PROGRAM.is_file():
        return "the foreign model server is not installed: run scripts/interop"
    return ""


@attrs.frozen
class Dialect:
    """One protocol as a provider of our configuration, and where its requests have what.

    Args:
        id: The provider's id in the configuration.
        provider: What is configured besides address and key.
        base: The path of its ``base_url``.
        model, small: Models the foreign server takes for ones that think.
        path: Part of the path of a request for an answer.
        thinks: What is configured so that it thinks.
        usage: The names of input and output tokens on its wire.
    """

    id: str
    provider: Mapping[str, Any]
    base: str
    model: str
    small: str
    path: str
    thinks: Mapping[str, Any]
    usage: tuple[str, str]

    @property
    def name(self) -> str:
        """The model as ``-m`` takes it."""
        return f"{self.id}/{self.model}"

    def configured(self, address: str) -> Json:
        """The provider's configuration for the server at ``address``."""
        models = [
            {
                "id": name,
                "context_window": 200_000,
                "default_max_tokens": 8_000,
                "cost_per_1m_in": 2,
                "cost_per_1m_out": 4,
                "can_reason": True,
                "supports_attachments": True,
            }
            for name in (self.model, self.small)
        ]
        address = address + self.base
        return {**self.provider, "base_url": address, "api_key": KEY, "models": models}

    def chosen(self, **more: Any) -> Json:
        """The model as the configuration's ``models.large``."""
        return {"provider": self.id, "model": self.model, **self.thinks, **more}


_ASKED = {"reasoning_effort": "high"}
DIALECTS = (
    Dialect(
        "chat",
        {"type": "openai-compat"},
        "/v1",
        "qwen3-coder",
        "qwen3-mini",
        "/v1/chat/completions",
        _ASKED,
        ("prompt_tokens", "completion_tokens"),
    ),
    Dialect(
        "responses",
        {"type": "openai", "api": "responses"},
        "/v1",
        "gpt-5",
        "gpt-5-mini",
        "/v1/responses",
        _ASKED,
        ("input_tokens", "output_tokens"),
    ),
    Dialect(
        "claude",
        {"type": "anthropic"},
        "",
        "claude-sonnet-4-5",
        "claude-haiku-4-5",
        "/v1/messages",
        {"think": True},
        ("input_tokens", "output_tokens"),
    ),
    Dialect(
        "gemini",
        {"type": "google"},
        "/v1beta",
        "gemini-2.5-pro",
        "gemini-2.5-flash",
        ":streamGenerateContent",
        _ASKED,
        ("promptTokenCount", "candidatesTokenCount"),
    ),
)


@attrs.frozen
class ForeignServer:
    """A running one."""

    url: str
    process: subprocess.Popen[str]

    def _control(self, method: str, path: str, body: Json | None = None) -> Any:
        headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.url}/__aimock/{path}", data=data, headers=headers, method=method
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)

    def add(self, *fixtures: Json) -> None:
        """Teach it answers; the first that fits a request counts."""
        self._control("POST", "fixtures", {"fixtures": list(fixtures)})

    def journal(self) -> list[Json]:
        """The requests it took, oldest first, with the status of its answer."""
        entries: list[Json] = self._control("GET", "journal")
        return entries


@contextlib.contextmanager
def foreign_server(folder: Path) -> Iterator[ForeignServer]:
    """Run it for as long as the block lasts; strict, so that it refuses what it does not expect.

    It knows one answer, the title that each small model gives.
    """
    titles = [
        {"match": {"model": each.small}, "response": {"content": f"Title by {each.id}"}}
        for each in DIALECTS
    ]
    known = folder / "titles.json"
    known.write_text(json.dumps({"fixtures": titles}))
    command = ["node", str(PROGRAM), "--port", "0", "--strict", "--fixtures", str(known)]
    command += ["--chunk-size", str(PIECE_CHARS), "--log-level", "info"]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "AIMOCK_API_KEYS": KEY},
    )
    assert process.stdout is not None
    said: list[str] = []
    drain = threading.Thread(target=said.extend, args=(process.stdout,), daemon=True)
    try:
        for line in process.stdout:
            said.append(line)
            found = re.search(r"listening on (http://\S+)", line)
            if found:
                break
        else:
            raise AssertionError("".join(said))
        drain.start()
        yield ForeignServer(found[1], process)
    finally:
        process.kill()
        process.wait(10)
        if drain.ident is not None:
            drain.join(10)
        process.stdout.close()
