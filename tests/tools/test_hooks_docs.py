"""The page about hooks: its configuration can be used, and its examples do what it says."""

from __future__ import annotations

import json
import re
from pathlib import Path

from crush_trio.agent.ports import HookPlace, HookSays, ShellResult
from crush_trio.config.schema import validated
from crush_trio.protocol.ids import RunId, SessionId
from crush_trio.tools.hooks.answer import read_answer
from crush_trio.tools.hooks.configured import Hook, configured
from crush_trio.tools.hooks.running import CommandHooks
from tests.tools.desk import Desk

PAGE = (Path(__file__).parents[2] / "docs" / "hooks.md").read_text("utf-8")
BLOCKS = [
    re.sub(r"^    ", "", block, flags=re.MULTILINE)
    for block in re.findall(r"(?:^    .*\n)+", PAGE, re.MULTILINE)
]
SCRIPTS = [block for block in BLOCKS if block.startswith("#!")]
PUSH, TEST, OTHER = "git push origin main", "make test", "make test; rm -rf ."


def test_its_configuration_is_understood_whole() -> None:
    clean, unknown = validated(json.loads(BLOCKS[0]), "page")
    assert unknown == ()
    assert [hook.name for hook in configured(clean["hooks"])] == ["no push", "lint", "diary"]


def test_its_answer_is_read_whole() -> None:
    assert read_answer(Hook("PreToolUse", "h", ""), ShellResult(0, BLOCKS[1], "")) == HookSays(
        "h",
        decision="allow",
        reason="why",
        context="read this, too",
        updated_input={"command": "make test"},
    )


async def test_its_examples_refuse_allow_and_change(desk: Desk) -> None:
    files = [desk.write(f"{number}", text) for number, text in enumerate(SCRIPTS)]
    for file in files:
        file.chmod(0o700)
    made = tuple(Hook("PreToolUse", file.name, str(file)) for file in files)
    place = HookPlace(desk.root, SessionId("s"), RunId("r"), desk.env)
    found = []
    for command in (PUSH, TEST, OTHER):
        said = await CommandHooks(made, desk.processes, place).before_tool(
            "bash", {"command": command}
        )
        found.append([each.decision for each in said])
        assert [each.problem for each in said] == ["", "", ""]
        assert said[2].updated_input == {"command": f"nice {command}"}
    assert found == [["deny", "none", "none"], ["none", "allow", "none"], ["none"] * 3]
