"""Hooks as real commands: what they are told, what they answer, and how they end (CW 7.6)."""

# ruff: noqa: ASYNC110, ASYNC240
# A test may look at a file, and other processes have no event to wait for.

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from crush_trio.agent.ports import HookPlace, HookSays, ShellResult
from crush_trio.limits import (
    HOOK_ENV_BYTES,
    HOOK_TEXT_CHARS,
    HOOK_TIMEOUT_MAX_S,
    HOOK_TIMEOUT_S,
    KILL_TOTAL_S,
)
from crush_trio.protocol.ids import RunId, SessionId
from crush_trio.tools.hooks import running
from crush_trio.tools.hooks.answer import read_answer
from crush_trio.tools.hooks.configured import Hook, chosen, configured
from crush_trio.tools.hooks.running import CommandHooks
from crush_trio.tools.processes.spill import SpillArea
from tests.tools.desk import Desk


def hooks(desk: Desk, *commands: str, event: str = "PreToolUse", **more: Any) -> CommandHooks:
    """Hooks without matchers that run these commands, called by their numbers."""
    made = tuple(Hook(event, str(n), command, **more) for n, command in enumerate(commands))
    place = HookPlace(desk.root, SessionId("s"), RunId("r"), desk.env)
    return CommandHooks(made, desk.processes, place)


# --- answers ------------------------------------------------------------------------------


def answer(stdout: Any = "", code: int | None = 0, stderr: str = "", **more: Any) -> dict[str, Any]:
    """What a hook said, without what it did not say."""
    text = stdout if isinstance(stdout, str) else json.dumps(stdout)
    hook = Hook("PreToolUse", "h", "true", timeout_s=7)
    says = read_answer(hook, ShellResult(code, text, stderr, **more))
    blank = HookSays("h")
    names = ("decision", "halt", "reason", "context", "updated_input", "problem")
    return {n: getattr(says, n) for n in names if getattr(says, n) != getattr(blank, n)}


DENY = {"decision": "deny"}
ALLOW = {"decision": "allow"}
UNREADABLE = "these members of its answer cannot be read: "
LONG = "x" * (HOOK_TEXT_CHARS + 1)
ANSWERS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    # exit codes
    (answer(code=0), {}),
    (answer(code=2, stderr=" no\n"), {**DENY, "reason": "no"}),
    (answer(ALLOW, code=2), DENY),
    (answer(code=49, stderr="stop"), {**DENY, "halt": True, "reason": "stop"}),
    (answer(DENY, code=1, stderr="a\nb\n"), {"problem": "exit code 1: b"}),
    (answer(code=127), {"problem": "exit code 127"}),
    (answer(DENY, code=None, timed_out=True), {"problem": "ended after 7 s"}),
    (answer(code=2, stderr=LONG), {**DENY, "reason": LONG[:-1] + "…"}),
    # what is no answer
    (answer("fine"), {}),
    (answer("[1]"), {}),
    (answer("{"), {"problem": "its output is not JSON"}),
    (answer('{"decision": "deny"} x'), {"problem": "its output is not JSON"}),
    (answer(DENY, stdout_dropped=1), {"problem": "its output is too long to be read"}),
    # our members
    (answer({}), {}),
    (answer({"version": 1, "decision": None}), {}),
    (answer({"version": 1, **ALLOW}), ALLOW),
    (answer({**DENY, "reason": "r"}), {**DENY, "reason": "r"}),
    (answer({"halt": True, "reason": "r"}), {"halt": True, "reason": "r"}),
    (answer({"context": "a"}), {"context": "a"}),
    (answer({"context": ["a", "b"]}), {"context": "a\nb"}),
    (answer({"updated_input": {"a": None}}), {"updated_input": {"a": None}}),
    (answer({"decision": "ask"}), {}),
    # those of others
    (answer({"decision": "approve"}), ALLOW),
    (answer({"decision": "block", "reason": "r"}), {**DENY, "reason": "r"}),
    (answer({"continue": False, "stopReason": "s"}), {"halt": True, "reason": "s"}),
    (answer({"continue": True, "stopReason": "s"}), {}),
    (
        answer(
            {
                "hookSpecificOutput": {
                    "hookEventName": "PreToolUse",
                    "permissionDecision": "allow",
                    "permissionDecisionReason": "r",
                    "updatedInput": {"a": 1},
                    "additionalContext": "c",
                }
            }
        ),
        {**ALLOW, "reason": "r", "updated_input": {"a": 1}, "context": "c"},
    ),
    (answer({**ALLOW, "hookSpecificOutput": {"permissionDecision": "deny"}}), DENY),
    # a wrong type: what was to be refused still is, what was to be allowed is not
    (answer({"decision": "yes"}), {"problem": f"{UNREADABLE}decision"}),
    (answer({"decision": 1}), {"problem": f"{UNREADABLE}decision"}),
    (answer({**ALLOW, "updated_input": [1]}), {"problem": f"{UNREADABLE}updated_input"}),
    (answer({**DENY, "context": [1]}), {**DENY, "problem": f"{UNREADABLE}context"}),
    (answer({"halt": "yes", "reason": 1}), {"problem": f"{UNREADABLE}halt, reason"}),
    (answer({"hookSpecificOutput": "x"}), {"problem": f"{UNREADABLE}hookSpecificOutput"}),
]


def test_an_answer_is_read_for_what_it_says_and_no_more() -> None:
    for number, (found, expected) in enumerate(ANSWERS):
        assert found == expected, number


# --- which hooks --------------------------------------------------------------------------


def test_hooks_are_found_by_their_event_and_matcher_and_each_command_once() -> None:
    made = configured(
        {
            "PreToolUse": [
                {"command": "a", "matcher": "edit", "timeout": 0},
                {"command": "b", "matcher": "^edit$", "name": "named", "timeout": 99_999},
                {"command": "a", "matcher": "*"},
                {"command": "c", "matcher": "(a|a)*$", "timeout": 5},
            ],
            "Stop": [{"command": "a"}],
            "Unknown": [{"command": "d"}],
        }
    )
    assert [(hook.name, hook.timeout_s) for hook in made] == [
        ("PreToolUse 1", HOOK_TIMEOUT_S),
        ("named", HOOK_TIMEOUT_MAX_S),
        ("PreToolUse 3", HOOK_TIMEOUT_S),
        ("PreToolUse 4", 5),
        ("Stop 1", HOOK_TIMEOUT_S),
    ]
    for tool, found in {"multiedit": "1 4", "edit": "1 named 4", "bash": "3 4"}.items():
        names = [hook.name.removeprefix("PreToolUse ") for hook in chosen(made, "PreToolUse", tool)]
        assert " ".join(names) == found
    assert [hook.name for hook in chosen(made, "Stop", None)] == ["Stop 1"]
    assert chosen(made, "PostToolUse", "edit") == ()
    # an expression that takes Python's engine for ever takes no time
    assert chosen(made, "PreToolUse", "a" * 50_000 + "!")


# --- running ------------------------------------------------------------------------------


async def test_hooks_are_told_of_the_call_and_heard_in_their_order(desk: Desk) -> None:
    """What they answer counts by their place in the configuration, not by who was first."""
    asked = hooks(
        desk,
        'sleep 0.1; cat >told; env >variables; echo >&2 "not  this"; exit 2',
        'echo \'{"decision": "allow", "updated_input": {"command": "true"}}\'',
        "exit 49",
        "exit 1",
        "yes | head -c 400000",
        "sleep 60",
    )
    slow = attrs.evolve(asked.hooks[-1], timeout_s=0.5)
    asked = attrs.evolve(asked, hooks=(*asked.hooks[:-1], slow))
    said = await asked.before_tool("bash", {"command": "ls", "file_path": "a\ud800", "n": [1]})
    assert [(each.name, each.decision, each.halt, each.problem) for each in said] == [
        ("0", "deny", False, ""),
        ("1", "allow", False, ""),
        ("2", "deny", True, ""),
        ("3", "none", False, "exit code 1"),
        ("4", "none", False, ""),
        ("5", "none", False, "ended after 0.5 s"),
    ]
    assert said[0].reason == "not  this"
    assert json.loads((desk.root / "told").read_text()) == {
        "event": "PreToolUse",
        "session_id": "s",
        "run_id": "r",
        "cwd": str(desk.root),
        "tool_name": "bash",
        "tool_input": {"command": "ls", "file_path": "a\ud800", "n": [1]},
    }
    lines = dict(
        line.partition("=")[::2] for line in (desk.root / "variables").read_text().splitlines()
    )
    assert {name: value for name, value in lines.items() if name.startswith("CRUSH_")} == {
        "CRUSH_TRIO": "1",
        "CRUSH_TRIO_LAUNCHER": lines["CRUSH_TRIO_LAUNCHER"],
        "CRUSH_EVENT": "PreToolUse",
        "CRUSH_SESSION_ID": "s",
        "CRUSH_RUN_ID": "r",
        "CRUSH_CWD": str(desk.root),
        "CRUSH_PROJECT_DIR": str(desk.root),
        "CRUSH_TOOL_NAME": "bash",
        "CRUSH_TOOL_INPUT_COMMAND": "ls",
        "CRUSH_TOOL_INPUT_FILE_PATH": "a?",
    }
    assert lines["PATH"] == desk.env["PATH"]


async def test_an_argument_that_fits_no_variable_is_in_stdin_alone(desk: Desk) -> None:
    """Neither a NUL nor the kernel's bound on one variable keeps a hook from being asked."""
    asked = hooks(desk, "[ -z ${CRUSH_TOOL_INPUT_COMMAND+x} ] && wc -c >size")
    for command in ("a\0b", "x" * (HOOK_ENV_BYTES + 1), "é" * HOOK_ENV_BYTES, 5):
        (said,) = await asked.before_tool("bash", {"command": command})
        assert said.problem == ""
        assert int((desk.root / "size").read_text()) > len(str(command))


async def test_hooks_of_one_moment_run_side_by_side(desk: Desk) -> None:
    """Each waits for what the other writes: one after the other they would wait for ever."""
    for name in ("a", "b"):
        os.mkfifo(desk.root / name)
    with trio.fail_after(10):
        said = await hooks(
            desk,
            'echo from-0 >a; read said <b; echo "{\\"context\\": \\"$said\\"}"',
            'read said <a; echo from-1 >b; echo "{\\"context\\": \\"$said\\"}"',
        ).before_tool("bash", {})
    assert [each.context for each in said] == ["from-1", "from-0"]


async def test_only_so_many_hooks_run_at_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "HOOKS_AT_ONCE", 2)
    (desk.root / "now").mkdir()
    count = "mkdir now/{0}; ls now | wc -l >>counts; sleep 0.05; rmdir now/{0}"
    await hooks(desk, *(count.format(n) for n in range(4))).before_tool("bash", {})
    counts = (desk.root / "counts").read_text().split()
    assert len(counts) == 4
    assert set(counts) <= {"1", "2"}


async def test_hooks_behind_a_call_and_behind_a_run_are_told_what_came_of_it(desk: Desk) -> None:
    after = hooks(desk, "cat >told; echo >&2 lint; exit 2", event="PostToolUse")
    (said,) = await after.after_tool("edit", {"a": 1}, "done", is_error=True)
    assert (said.decision, said.reason) == ("deny", "lint")
    told = json.loads((desk.root / "told").read_text())
    assert told["tool_response"] == {"content": "done", "is_error": True}
    assert (told["event"], told["tool_input"]) == ("PostToolUse", {"a": 1})
    assert await after.before_tool("edit", {}) == ()
    end = hooks(desk, "cat >told; [ $CRUSH_OUTCOME = failed ] && touch seen; exit 2", event="Stop")
    await end.run_ended("failed", "half", "It broke.")
    told = json.loads((desk.root / "told").read_text())
    assert {key: told[key] for key in ("event", "run_id", "outcome", "text", "error")} == {
        "event": "Stop",
        "run_id": "r",
        "outcome": "failed",
        "text": "half",
        "error": "It broke.",
    }
    assert (desk.root / "seen").exists()


async def test_a_hook_that_cannot_be_started_decides_nothing(desk: Desk) -> None:
    asked = hooks(desk, "exit 2")
    desk.root.rmdir()
    (said,) = await asked.before_tool("bash", {})
    assert (said.decision, said.problem) == ("none", "cannot be started: No such file or directory")


async def test_what_a_hook_writes_stays_out_of_the_log(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    (said,) = await hooks(desk, "echo hunter2 >&2; exit 7").before_tool("bash", {})
    assert said.problem == "exit code 7: hunter2"
    assert caplog.messages == ["run r: hook '0' (PreToolUse): exit code 7"]


async def test_a_cancel_ends_hooks_that_do_not_want_to_end(desk: Desk) -> None:
    """G4, G10: all of them at once, with what they have started."""
    stubborn = 'trap "" TERM; (sleep 600) & echo $$ $! >pids.{}; while :; do sleep 0.1; done'
    asked = hooks(desk, stubborn.format(0), stubborn.format(1))
    files = [desk.root / "pids.0", desk.root / "pids.1"]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(asked.before_tool, "bash", {})
        with trio.fail_after(10):
            while not all(file.exists() and file.read_text().endswith("\n") for file in files):
                await trio.sleep(0.01)
        began = trio.current_time()
        nursery.cancel_scope.cancel()
    assert trio.current_time() - began <= KILL_TOTAL_S
    pids = [pid for file in files for pid in file.read_text().split()]
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
    report = await desk.processes.aclose()
    assert (report.started, report.left) == (2, ())


async def test_what_a_hook_writes_is_not_kept_for_the_model(desk: Desk, spill: SpillArea) -> None:
    """Long outputs of a session may be looked at without permission; a hook's are the user's."""
    (said,) = await hooks(desk, "head -c 200000 /dev/zero | tr '\\0' x").before_tool("bash", {})
    assert said.problem == ""
    assert not list(spill.directory.rglob("*.txt"))
