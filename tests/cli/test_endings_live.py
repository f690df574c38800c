"""How commands end when their reader, their terminal or their patience has gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

import pytest

from tests.cli.live import LIMIT_S, Shell, read_line

HELLO = ({"text": "Hello"},)
STUBBORN = "trap '' TERM INT; echo ready; while :; do sleep 1; done"


def ended_by_two_signals(process: subprocess.Popen[bytes]) -> str:
    """What a command still writes after a first signal and another one, until it has gone."""
    process.send_signal(signal.SIGINT)
    while True:
        try:
            out, _ = process.communicate(timeout=0.1)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
        else:
            return out.decode()


def test_the_second_signal_leaves_a_result_line_too(shell: Shell) -> None:
    """G13: the last line of JSON is the result on every ending."""
    tool = {"tool": "bash", "input": {"command": STUBBORN, "description": "d"}}
    words = ("run", "-y", "--json", "-m", shell.script("stubborn", (tool,)), "go")
    with shell.start(*words) as process:
        while json.loads(read_line(process))["type"] != "tool_output":
            pass
        result = json.loads(ended_by_two_signals(process).splitlines()[-1])
    assert (result["type"], result["reason"], result["outcome"]) == ("result", "interrupted", None)
    assert process.returncode == result["exit_code"] == 143
    shell.run("wait", result["run_id"])


def test_the_second_signal_leaves_a_result_line_of_a_command_too(shell: Shell) -> None:
    """G13: ``session shell`` has one line of JSON, and always has it."""
    shell.run("run", "-m", shell.script("hello", HELLO), "x")
    mark = shell.root / "begun"
    os.mkfifo(mark)
    words = (
        "session",
        "shell",
        "latest",
        STUBBORN.replace("echo ready", f"echo >{mark}"),
        "--json",
    )
    with shell.start(*words) as process:
        mark.read_text()
        result = json.loads(ended_by_two_signals(process))
    assert (result["type"], result["reason"]) == ("result", "interrupted")
    assert process.returncode == result["exit_code"] == 143
    shell.run("wait", result["run_id"])


def without_a_reader(shell: Shell, words: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
    """A command whose stdout is a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return call(shell, [sys.executable, "-m", "crush_trio", *words], stdout=writer)
    finally:
        os.close(writer)


def call(shell: Shell, words: Sequence[str], stdout: int) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        cwd=shell.work,
        env=shell.environ,
        timeout=LIMIT_S,
        check=False,
    )


@pytest.mark.parametrize(
    "words",
    [
        ("session", "shell", "latest", "echo hi"),
        ("session", "shell", "latest", "echo hi", "--json"),
        ("session", "shell", "nobody", "echo hi", "--json"),
    ],
)
def test_a_command_in_a_session_without_a_reader_ends_with_141(
    shell: Shell, words: Sequence[str]
) -> None:
    """G13: and without a traceback."""
    shell.run("run", "-m", shell.script("hello", HELLO), "x")
    done = without_a_reader(shell, words)
    assert (done.returncode, b"Traceback" in done.stderr) == (141, False)


@pytest.mark.parametrize("words", ["run -m MODEL x", "ps -a", "session list --json"])
def test_an_answer_that_has_nowhere_to_go_is_not_a_success(shell: Shell, words: str) -> None:
    """G13: a stdout that was closed before we began is as one that was closed later."""
    command = words.replace("MODEL", shell.script("hello", HELLO))
    closing = f"exec '{sys.executable}' -m crush_trio {command} >&-"
    done = call(shell, ["sh", "-c", closing], stdout=subprocess.DEVNULL)
    assert (done.returncode, b"Traceback" in done.stderr) == (141, False)


def test_a_command_in_a_session_tells_in_json_that_there_is_no_server(lone_shell: Shell) -> None:
    """G13: as ``run`` does."""
    done = lone_shell.run("session", "shell", "latest", "ls", "--json", "--no-autostart")
    [result] = done.lines()
    assert (result["type"], result["reason"]) == ("result", "unreachable")
    assert done.code == result["exit_code"] == 7
