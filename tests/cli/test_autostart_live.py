"""Servers that commands start by themselves, and what becomes of a run when one dies."""

from __future__ import annotations

import json
import os
import signal
import stat

from tests.cli.live import LIMIT_S, Shell, read_json_until

HELLO = ({"text": "Hello"},)
SLOW = ({"text": "begun"}, {"wait_ms": 60_000})


def server_pid(shell: Shell) -> int:
    return int(json.loads((shell.data / "lock").read_text())["pid"])


def test_many_commands_at_once_start_one_server_and_stop_ends_it(lone_shell: Shell) -> None:
    words = ("run", "--json", "-m", lone_shell.script("hello", HELLO), "x")
    with lone_shell.start(*words) as one, lone_shell.start(*words) as two:
        ends = [process.communicate(timeout=LIMIT_S) for process in (one, two)]
        assert [one.returncode, two.returncode] == [0, 0], ends
    servers = {json.loads(out.splitlines()[0])["server_id"] for out, _ in ends}
    assert len(servers) == 1
    pid = server_pid(lone_shell)
    assert os.getsid(pid) == pid  # the terminal's Ctrl-C is not for it
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert stat.S_IMODE(lone_shell.data.stat().st_mode) == 0o700
    assert lone_shell.run("stop").code == 0
    assert lone_shell.run("ps", "--no-autostart").code == 7
    assert "listening on" in lone_shell.run("logs").out


def test_a_killed_server_is_started_again_and_the_lost_run_is_told(lone_shell: Shell) -> None:
    with lone_shell.start(
        "run", "--json", "-m", lone_shell.script("slow", SLOW), "x"
    ) as process:  # fmt: skip
        start = read_json_until(process, "message_delta")[0]
        os.kill(server_pid(lone_shell), signal.SIGKILL)
        result = read_json_until(process, "result")[-1]
        assert process.wait(LIMIT_S) == 9
    assert (result["outcome"], result["error"]["code"]) == ("lost", "lost")
    assert lone_shell.run("wait", start["run_id"]).code == 9


def test_a_stopped_server_cancels_the_run_and_the_command_says_so(lone_shell: Shell) -> None:
    with lone_shell.start(
        "run", "--json", "-m", lone_shell.script("slow", SLOW), "x"
    ) as process:  # fmt: skip
        read_json_until(process, "message_delta")
        assert lone_shell.run("stop").code == 0
        result = read_json_until(process, "result")[-1]
        assert process.wait(LIMIT_S) == 5
    assert result["cancelled_by"]["reason"] == "shutdown"
