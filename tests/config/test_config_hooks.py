"""Hooks in the configuration: whose count, what is refused, and that nobody sets one from afar."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from crush_trio.config.change import Files, removing, setting
from crush_trio.config.check import check
from crush_trio.config.load import load_config, review
from crush_trio.config.review import review_text
from crush_trio.config.schema import validated
from crush_trio.config.show import show_json
from crush_trio.config.templates import templates
from crush_trio.config.trusted import trust
from crush_trio.protocol.errors import ConfigError

RE2 = "expected a regular expression of RE2 (no look-around, no back-references)"
WRONG: dict[str, tuple[Any, str]] = {
    "no list": ({"command": "x"}, "PreToolUse: expected an array, not an object"),
    "no command": ([{"matcher": "bash"}], "PreToolUse[0]: expected an object with command"),
    "an empty one": ([{"command": ""}], "PreToolUse[0]: expected an object with command"),
    "a list of words": ([{"command": ["x"]}], "PreToolUse[0].command: expected a string, not"),
    "a broken expression": ([{"command": "x", "matcher": "(a"}], f"PreToolUse[0].matcher: {RE2}"),
    "look-around": ([{"command": "x", "matcher": "a(?!b)"}], f"PreToolUse[0].matcher: {RE2}"),
    "too large": ([{"command": "x", "matcher": "((a{99}){99}){99}"}], f"[0].matcher: {RE2}"),
    "a number": ([{"command": "x", "matcher": 1}], "matcher: expected a string, not an integer"),
    "no time": ([{"command": "x", "timeout": -1}], "timeout: expected an integer of at least 0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_hook_that_cannot_be_used_is_one_sentence(name: str, capfd: Any) -> None:
    """G14; the engine itself prints nothing."""
    value, sentence = WRONG[name]
    with pytest.raises(ConfigError) as caught:
        validated({"hooks": {"PreToolUse": value}}, "crush.json")
    assert str(caught.value).startswith("crush.json: $.hooks.PreToolUse")
    assert sentence in str(caught.value)
    assert capfd.readouterr().err == ""


def test_a_hook_that_can_be_used_is_kept_as_it_is() -> None:
    hook = {"name": "n", "matcher": "^(bash|mcp_.*)$", "command": "a $B $(c)", "timeout": 5}
    table = {"PreToolUse": [hook, {"command": "x", "matcher": "*"}], "Stop": [{"command": "y"}]}
    clean, unknown = validated({"hooks": table}, "f")
    assert (clean["hooks"], unknown) == (table, ())
    assert templates(clean) == {}  # the shell expands what is in a command
    unknown = validated({"hooks": {"PostTooluse": []}}, "f")[1]
    assert unknown == ("$.hooks.PostTooluse (did you mean PostToolUse?)",)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "home/.config/crush-trio").mkdir(parents=True)
    (tmp_path / "work").mkdir()
    user = {"hooks": {"PreToolUse": [{"command": "mine", "name": "user's"}]}}
    (tmp_path / "home/.config/crush-trio/config.json").write_text(json.dumps(user))
    return {"HOME": str(tmp_path / "home")}


def test_hooks_of_a_repository_count_as_long_as_it_is_trusted(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    """T29: they are named, and inert again after any change of one."""
    work = tmp_path / "work"
    hook = {"command": "./check.sh", "matcher": "edit", "timeout": 3, "name": "theirs"}

    def write(**changes: Any) -> None:
        document = {"hooks": {"PreToolUse": [{**hook, **changes}]}}
        (work / "crush.json").write_text(json.dumps(document))

    def counting() -> list[str]:
        config = load_config(work, environ=environ)
        return [each["command"] for each in config.hooks["PreToolUse"]]

    write()
    assert counting() == ["mine"]
    (named,) = load_config(work, environ=environ).notices
    assert named == (
        "crush.json: hooks have no effect: this directory is not trusted (crush-trio config trust)."
    )
    assert '"command": "./check.sh"' in review_text(review(work, environ=environ))
    trust(work, review(work, environ=environ).digest, environ)
    assert counting() == ["mine", "./check.sh"]
    for changes in ({"command": "./check.sh; x"}, {"matcher": ""}, {"timeout": 4}, {"name": "x"}):
        write(**changes)
        assert counting() == ["mine"]
        write()
        assert counting() == ["mine", "./check.sh"]
    (work / ".crush.json").write_text('{"hooks": {"Stop": [{"command": "more"}]}}')
    assert counting() == ["mine"]


def test_commands_of_hooks_are_shown_to_nobody(tmp_path: Path, environ: dict[str, str]) -> None:
    shown = show_json(load_config(None, environ=environ), data_directory=tmp_path)
    assert shown["config"]["hooks"] == {"PreToolUse": [{"name": "user's", "command": "***"}]}


@pytest.mark.parametrize("scope", [0, 1])
def test_no_hook_is_set_or_removed_over_the_api(
    tmp_path: Path, environ: dict[str, str], scope: int
) -> None:
    """What nobody may have run from afar, nobody may switch off either."""
    files = Files(tmp_path / "work", tmp_path / "data", environ)
    file = files.of(scope)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text('{"hooks": {"PreToolUse": [{"command": "mine"}]}, "options": {}}')
    before = file.read_text()
    for change in (
        setting(("hooks", "PreToolUse"), []),
        setting(("hooks", "Stop"), [{"command": "x"}]),
        setting(("hooks",), {}),
        removing(("hooks",)),
    ):
        with pytest.raises(ConfigError, match="hooks cannot be set over the API"):
            files.change(scope, [change])
        assert file.read_text() == before
    files.change(scope, [setting(("options", "progress"), False)])
    assert json.loads(file.read_text())["options"] == {"progress": False}


def test_a_check_names_the_hooks_whose_program_is_not_there(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    """Nothing is run, and what only a shell can know is not guessed."""
    work, home = tmp_path / "work", tmp_path / "home"
    for name, mode in (("there.sh", 0o700), ("plain.sh", 0o600)):
        (work / name).write_text("#!/bin/sh\ntouch ran\n")
        (work / name).chmod(mode)
    commands = {
        "./there.sh now": "",
        "cat; exit 2": "",
        "if x; then y; fi": "",
        "[ -e x ]": "",
        "X=1 y": "",
        '"$HOME/x"': "",
        "(x)": "",
        "./gone.sh": '"./gone.sh" is not there',
        "./plain.sh": '"./plain.sh" may not be executed (chmod +x)',
        "~/gone.sh a": '"~/gone.sh" is not there',
        "no-such-program -x": '"no-such-program" is not on the PATH',
    }
    hooks = {"Stop": [{"command": command} for command in commands], "Unknown": 5}
    (home / ".config/crush-trio/config.json").write_text(json.dumps({"hooks": hooks}))
    found = check(work, environ={**environ, "PATH": "/usr/bin:/bin"})
    assert [finding.text for finding in found.findings if "hooks.Stop" in finding.text] == [
        f"hooks.Stop[{number}].command: {problem}."
        for number, problem in enumerate(commands.values())
        if problem
    ]
    assert found.ok
    assert not (work / "ran").exists()
