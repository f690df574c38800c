"""What the tests about waiting for a person share: models that ask, answers, and terminals."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs

from tests import forked
from tests.e2e.kit import Json, Server, eventually, script

QUESTIONS = [
    {
        "type": "single_choice",
        "question": "Which format?",
        "description": "Of the export.",
        "choices": ["JSON", "CSV"],
    },
    {"type": "yes_no", "question": "Sure?", "description": "It is a lot."},
]


def wants(home: Path, *commands: str) -> str:
    """A model that wants to run these commands in one step, and says so when it is done."""
    calls = [{"tool": "bash", "input": {"command": c, "description": "do it"}} for c in commands]
    return script(home / f"wants-{len(list(home.iterdir()))}.json", calls, [{"text": "made it"}])


def wonders(home: Path) -> str:
    """A model that asks two questions."""
    asked = {"tool": "question", "input": {"questions": QUESTIONS}}
    return script(home / "wonders.json", [asked], [{"text": "thank you"}])


def pending(server: Server, workspace: str, count: int = 1) -> list[Json]:
    """The requests of a workspace that wait, once there are so many."""
    path = f"/v1/workspaces/{workspace}/permissions"
    eventually(lambda: len(server.get(path)) == count)
    found: list[Json] = server.get(path)
    return found


def grant(server: Server, workspace: str, request: Json, action: str) -> Json:
    """Answer with the request as it was shown."""
    body = {"permission": request, "action": action}
    answer: Json = server.post(f"/v1/workspaces/{workspace}/permissions/grant", body)
    return answer


def notices(server: Server, workspace: str) -> list[tuple[str, bool, bool]]:
    """(call, granted, denied) of every notification in the journal."""
    told = [
        e["payload"]["payload"]
        for e in server.events(workspace)
        if e["type"] == "permission_notification"
    ]
    return [(each["tool_call_id"], each["granted"], each["denied"]) for each in told]


@contextmanager
def running(server: Server, project: Path, *arguments: str, **more: Any) -> Iterator[Any]:
    """A ``run`` in mode ask."""
    process = forked.Popen(
        [
            sys.executable,
            "-m",
            "crush_trio",
            "run",
            "--permission-mode",
            "ask",
            *arguments,
            "--data-dir",
            str(server.data),
            "go",
        ],
        cwd=project,
        env=server.env | {"TERM": "dumb"},
        text=True,
        stdout=subprocess.PIPE,
        **{"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE} | more,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@attrs.define
class Terminal:
    """The other end of a pseudo terminal, and what was shown on it."""

    fd: int
    shown: str = ""

    def expect(self, wanted: str, timeout: float = 20) -> None:
        """Read until it was shown."""
        deadline = time.monotonic() + timeout
        while wanted not in self.shown:
            assert time.monotonic() < deadline, self.shown
            if select.select([self.fd], [], [], 0.1)[0]:
                self.shown += os.read(self.fd, 65536).decode("utf-8", "replace")

    def type(self, line: str) -> None:
        """A person's line; what was shown before does not count any more."""
        self.shown = ""
        os.write(self.fd, f"{line}\n".encode())


@contextmanager
def on_a_terminal(server: Server, project: Path, *arguments: str) -> Iterator[tuple[Any, Terminal]]:
    """A ``run`` whose stdin and stderr are a terminal."""
    ours, theirs = pty.openpty()
    try:
        with running(server, project, *arguments, stdin=theirs, stderr=theirs) as process:
            os.close(theirs)
            yield process, Terminal(ours)
    finally:
        with suppress(OSError):
            os.close(ours)
