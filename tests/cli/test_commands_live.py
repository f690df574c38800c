"""The commands against a real server."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import forked
from tests.cli.live import LIMIT_S, Shell, make_shell, read_json_until, read_line
from tests.cli.terminal import EVIL, orders_in

HELLO = ({"text": "Hello "}, {"text": "world"})
SLOW = ({"text": "begun"}, {"wait_ms": 60_000}, {"text": "never"})


def test_stdout_is_the_answer_and_nothing_else(shell: Shell) -> None:
    done = shell.run("run", "-m", shell.script("hello", HELLO), "x")
    assert (done.code, done.out, done.err) == (0, "Hello world\n", "")


def test_stream_json_begins_with_start_and_ends_with_result(shell: Shell) -> None:
    done = shell.run("run", "--json", "-m", shell.script("hello", HELLO), "x")
    lines = done.lines()
    start, result, frames = lines[0], lines[-1], lines[1:-1]
    assert done.code == result["exit_code"] == 0
    assert (start["type"], result["type"]) == ("start", "result")
    assert (result["outcome"], result["text"]) == ("completed", "Hello world")
    assert frames[-1]["type"] == "run_complete"
    numbers = [frame["seq"] for frame in frames if "seq" in frame]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert numbers[0] == start["seq"] + 1
    assert {"start", "result", "hello", "ping"}.isdisjoint(frame["type"] for frame in frames)
    deltas = [frame["text"] for frame in frames if frame["type"] == "message_delta"]
    assert "".join(deltas) == "Hello world"


def test_json_is_the_result_alone(shell: Shell) -> None:
    done = shell.run("run", "--output-format", "json", "tell me a joke")
    [result] = done.lines()
    assert (done.code, result["outcome"], result["exit_code"]) == (4, "failed", 4)
    assert result["error"]["code"] == "no_language_model"
    assert result["error"]["message"] in done.err


def test_an_open_stdin_that_nobody_writes_to_is_not_read(shell: Shell) -> None:
    reader, writer = os.pipe()
    try:
        words = ("run", "-m", shell.script("hello", HELLO), "x")
        with os.fdopen(reader, "rb") as stdin, shell.start(*words, stdin=stdin) as process:
            out, _ = process.communicate(timeout=LIMIT_S)
    finally:
        os.close(writer)
    assert (process.returncode, out) == (0, b"Hello world\n")


def test_the_prompt_may_come_from_stdin_alone_or_in_front_of_words(shell: Shell) -> None:
    model = shell.script("hello", HELLO)
    for words, prompt in (([], "from stdin"), (["-"], "from stdin"),
                          (["explain", "-"], "from stdin\n\nexplain")):  # fmt: skip
        done = shell.run("run", "--json", "-m", model, *words, stdin=b"from stdin\n")
        created = next(line for line in done.lines() if line["type"] == "run")
        assert created["payload"]["payload"]["prompt"] == prompt


def test_a_detached_run_is_waited_for_by_its_id(shell: Shell) -> None:
    done = shell.run("run", "-d", "-m", shell.script("hello", HELLO), "--run-id", "mine-1", "x")
    assert (done.code, done.out) == (0, "mine-1\n")
    waited = shell.run("wait", "mine-1")
    assert (waited.code, waited.out) == (0, "Hello world\n")
    [result] = shell.run("wait", "--json", "mine-1").lines()
    assert (result["type"], result["text"]) == ("result", "Hello world")
    assert shell.run("wait", "nobody").code == 2


def test_waiting_may_end_before_the_run_does(shell: Shell) -> None:
    slow = shell.script("slow", SLOW)
    done = shell.run("run", "-m", slow, "--wait-timeout", "0.2", "--run-id", "slow-1", "x")
    assert (done.code, done.out) == (124, "")
    assert "crush-trio wait slow-1" in done.err
    assert shell.run("wait", "slow-1", "--timeout", "0.1").code == 124
    assert "slow-1" in shell.run("ps").out
    cancelled = shell.run("cancel", "slow-1")
    assert cancelled.out == "cancelled slow-1 (running)\n"
    waited = shell.run("wait", "slow-1")
    assert (waited.code, waited.out) == (5, "begun\n")
    assert "cancelled by" in waited.err
    assert "slow-1" not in shell.run("ps").out
    assert "slow-1" in [run["id"] for run in json.loads(shell.run("ps", "-a", "--json").out)]


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_cancels_the_run_and_follows_it_to_its_end(
    shell: Shell, signum: signal.Signals, code: int
) -> None:
    with shell.start("run", "--json", "-m", shell.script("slow", SLOW), "x") as process:
        start = read_json_until(process, "message_delta")[0]
        process.send_signal(signum)
        result = read_json_until(process, "result")[-1]
        assert process.wait(LIMIT_S) == code
    assert (result["outcome"], result["exit_code"], result["text"]) == ("cancelled", code, "begun")
    assert shell.run("wait", start["run_id"]).code == 5


def test_a_reader_that_goes_away_ends_the_command_but_not_the_run(shell: Shell) -> None:
    many = shell.script("many", [{"text": "token ", "tokens": 40, "every_ms": 5}])
    with shell.start("run", "--json", "--run-id", "head-1", "-m", many, "x") as process:
        read_line(process)
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(LIMIT_S) == 141
    assert shell.run("wait", "head-1").code == 0


def test_sessions_are_continued_listed_shown_and_deleted(shell: Shell) -> None:
    model = shell.script("hello", HELLO)
    [first] = shell.run("run", "--output-format", "json", "-m", model, "one").lines()
    [again] = shell.run("run", "-c", "--output-format", "json", "-m", model, "two").lines()
    session = first["session_id"]
    assert again["session_id"] == session
    [listed] = [
        item
        for item in json.loads(shell.run("session", "list", "--json").out)
        if item["id"] == session
    ]
    assert set(listed) == {"id", "uuid", "title", "created", "modified"}
    shown = json.loads(shell.run("session", "show", session[:8], "--json").out)
    assert shown["meta"]["id"] == session
    assert [message["role"] for message in shown["messages"]] == ["user", "assistant"] * 2
    assert "Hello world" in shell.run("session", "show", "latest").out
    assert shell.run("session", "delete", session).out == f"deleted {session}\n"
    assert shell.run("session", "show", session).code == 2
    assert shell.run("run", "-s", session, "x").code == 2


def test_a_busy_session_is_refused_on_demand(shell: Shell) -> None:
    [made] = shell.run("run", "--output-format", "json", "-d", "-m", shell.script("slow", SLOW),
                       "--run-id", "busy-1", "x").lines()  # fmt: skip
    done = shell.run("run", "--if-busy", "reject", "-s", made["session_id"], "y")
    assert done.code == 8
    assert "busy" in done.err
    assert shell.run("cancel", "-s", made["session_id"]).out == "cancelled busy-1 (running)\n"
    assert shell.run("cancel", "-s", made["session_id"]).out == "nothing to cancel\n"


def test_the_same_run_id_starts_nothing_twice(shell: Shell) -> None:
    model = shell.script("hello", HELLO)
    [made] = shell.run(
        "run", "--output-format", "json", "-m", model, "--run-id", "same", "x"
    ).lines()
    again = shell.run("run", "-m", model, "-s", made["session_id"], "--run-id", "same", "x")
    assert (again.code, again.out) == (0, "Hello world\n")
    other = shell.run("run", "-m", model, "-s", made["session_id"], "--run-id", "same", "other")
    assert other.code == 2


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["-s", "nobody"], 2),
        (["-m", "nobody/nothing"], 4),
        (["-m", "script/missing.json"], 4),
        (["--require-model"], 4),
    ],
    ids=str,
)
def test_what_the_server_refuses_has_its_own_exit_code(
    shell: Shell, words: list[str], code: int
) -> None:
    done = shell.run("run", *words, "x")
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith("crush-trio: ")
    assert done.err.count("\n") == 1


def test_the_answer_goes_to_a_file_too(shell: Shell) -> None:
    path = shell.root / "answer"
    path.write_text("an older and longer answer")
    shell.run("run", "-q", "-m", shell.script("hello", HELLO), "-o", str(path), "x")
    assert path.read_text() == "Hello world"


def test_control_sequences_stay_in_a_file_and_never_reach_a_terminal(shell: Shell) -> None:
    """T54: from what a model says, thinks and asks for, and from what a tool prints."""
    evil = " ".join(EVIL.values())
    (shell.work / "evil").write_text(f"{evil}\n")
    call = {"tool": "bash", "input": {"command": "cat evil", "description": f"d {evil}"}}
    model = shell.script(
        "evil", [{"reasoning": evil}, call], [{"text": "\n".join(["begin", *EVIL.values(), "end"])}]
    )
    piped = shell.run("run", "-y", "-m", model, evil)
    assert evil.split(" ")[0] in piped.out
    controller, terminal = os.openpty()
    words = ["run", "-y", "-v", "-m", model, evil]
    with os.fdopen(terminal, "wb", buffering=0) as both:
        command = forked.Popen(
            [sys.executable, "-m", "crush_trio", *words],
            stdin=subprocess.DEVNULL, stdout=both, stderr=both,
            env=shell.environ | {"TERM": "xterm"}, cwd=shell.work,
        )  # fmt: skip
    seen = b""
    with contextlib.suppress(OSError):  # nobody holds the other end any more
        while data := os.read(controller, 65536):
            seen += data
    os.close(controller)
    assert command.wait(LIMIT_S) == 0
    assert orders_in(seen) == [], seen
    assert all(word in seen for word in (b"begin", b"rm -rf", b"end\r\n", b"bash"))
    assert len(orders_in(piped.out.encode())) > 30


def test_watch_sees_from_a_second_process_what_happens(shell: Shell) -> None:
    with shell.start("watch", "--json") as process:
        read_json_until(process, "hello")
        read_json_until(process, "replayed")
        done = shell.run("run", "-m", shell.script("hello", HELLO), "--run-id", "seen-1", "x")
        assert done.code == 0
        frames = read_json_until(process, "run_complete")
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT_S) == 130
    assert frames[-1]["payload"]["payload"]["run_id"] == "seen-1"
    text = "".join(frame["text"] for frame in frames if frame["type"] == "message_delta")
    assert text == "Hello world"


def test_watch_shows_people_the_text(shell: Shell) -> None:
    with shell.start("watch", "--after", "start") as process:
        shell.run("run", "-m", shell.script("hello", HELLO), "--run-id", "seen-2", "look here")
        seen: list[str] = []
        while not seen or "seen-2 completed" not in seen[-1]:
            seen.append(read_line(process))
    assert seen[-3:] == ["> look here", "Hello world", "── seen-2 completed"]


def test_models_and_approvals_are_listed(shell: Shell) -> None:
    assert "\noffline/scout  (no language model)" in shell.run("models").out
    assert shell.run("models", "SCOUT").code == 0
    assert shell.run("models", "nothing-like-it").code == 1
    assert json.loads(shell.run("approvals", "--json").out) == []


def test_over_tcp_the_token_decides(tmp_path_factory: pytest.TempPathFactory) -> None:
    other = make_shell(tmp_path_factory.mktemp("ct"))
    token = other.root / "token"
    token.write_text("ana:" + "t" * 40 + "\n")
    token.chmod(0o600)
    wrong = other.environ | {"CRUSH_TRIO_TOKEN": "w" * 40}
    words = ("run", "list", "--token-file", str(token))
    with other.serving("--host", "tcp://127.0.0.1:0", "--token-file", str(token)) as url:
        assert url.startswith("tcp://127.0.0.1:")
        assert other.run(*words, "--server", url).code == 0
        refused = other.run("run", "list", "--server", url, environ=wrong)
        assert (refused.code, refused.out) == (4, "")
        assert other.run("run", "list", "--server", url).code == 4


def test_a_second_server_for_the_same_data_says_who_holds_it(shell: Shell) -> None:
    done = shell.run("serve", "--host", f"unix://{shell.root}/second.sock")
    assert (done.code, done.out) == (4, "")
    assert done.err.startswith("crush-trio: ")
    assert not Path(shell.root / "second.sock").exists()
