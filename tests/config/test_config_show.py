"""What ``config show`` and ``config check`` say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from crush_trio import limits
from crush_trio.config.check import check
from crush_trio.config.load import load_config
from crush_trio.config.show import limits_table, show_json, show_text

DATA = Path("/data")
NUMBERS = {name: getattr(limits, name) for name in vars(limits) if name.isupper()}


def test_every_number_of_the_limits_is_listed_with_its_section_and_comment() -> None:
    table = limits_table()
    assert {line.name: line.value for line in table} == NUMBERS
    by_name = {line.name: line for line in table}
    assert by_name["CONFIG_FILE_BYTES"].section == "configuration"
    assert by_name["CONFIG_FILE_BYTES"].comment == "a larger configuration file is refused (G14)"
    assert all(line.section for line in table)


def test_show_prints_files_warnings_configuration_and_limits(tmp_path: Path) -> None:
    user = tmp_path / "user.json"
    user.write_text('{"theme": 1, "providers": {"p": {"api_key": "sk-123"}}}')
    work = tmp_path / "w"
    work.mkdir()
    (work / "crush.json").write_text('{"mcp": {}, "options": {"progress": false}}')
    config = load_config(work, environ={}, user_config=user)
    text = show_text(config, data_directory=DATA)
    assert text.startswith(
        "# files, lowest first\n"
        f"read: {user}: theme, providers\n"
        f"read: {work / 'crush.json'} (workspace, not trusted): options\n"
        f"warning: {user}: unknown keys, kept without effect: theme.\n"
        "inert: crush.json: mcp (the workspace is not trusted)\n"
    )
    assert "sk-123" not in text
    assert "\nKILL_GRACE_S = 2.0  # " in text
    answer = show_json(config, data_directory=DATA)
    assert json.loads(json.dumps(answer)) == answer
    assert answer["sources"][1] == {
        "path": str(work / "crush.json"),
        "keys": ["options"],
        "trusted": False,
    }
    assert answer["inert"] == ["crush.json: mcp"]
    assert answer["warnings"] == [f"{user}: unknown keys, kept without effect: theme."]
    assert answer["limits"] == NUMBERS
    assert json.dumps(answer["config"], indent=2) in text


def test_show_of_nothing_says_none() -> None:
    text = show_text(load_config(None, environ={}), data_directory=DATA)
    assert text.startswith("# files, lowest first\nnone\n\n# configuration\n{")


def test_check_names_every_file_it_looked_for_and_what_is_in_it(tmp_path: Path) -> None:
    user = tmp_path / "user.json"
    user.write_text(
        '{"models": {"large": {"provider": "openai", "model": "m"}}, "mcp": {}, "more": 1,'
        ' "options": {"auto_lsp": true}}'
    )
    (tmp_path / ".crush.json").write_text('{"hooks": {}}')
    found = check(tmp_path, environ={"OPENAI_API_KEY": "k"}, user_config=user)
    assert found.ok
    assert found.lines == (
        f"read: {user}: models, mcp, more, options",
        f"absent: {tmp_path / 'crush.json'}",
        f"read: {tmp_path / '.crush.json'} (workspace, not trusted): no keys",
        f"absent: {tmp_path / '.crush-trio.json'}",
        f"warning: {user}: unknown keys, kept without effect: more.",
        "inert: .crush.json: hooks (the workspace is not trusted)",
        "note: without effect in this version: mcp, options.auto_lsp",
        "key: OPENAI_API_KEY for openai",
        "model: openai/m",
    )


def test_check_of_a_broken_file_is_one_error_line(tmp_path: Path) -> None:
    """G14."""
    (tmp_path / "crush.json").write_text("{")
    found = check(tmp_path, environ={"HOME": str(tmp_path)})
    assert not found.ok
    (line,) = found.lines
    assert line.startswith(f"error: {tmp_path / 'crush.json'}: not valid JSON at line 1, column 2")


def test_check_fails_for_a_provider_without_its_key(tmp_path: Path) -> None:
    user = tmp_path / "user.json"
    user.write_text('{"providers": {"p": {"api_key": "$UNSET"}}}')
    found = check(None, environ={}, user_config=user)
    assert not found.ok
    assert found.lines == (
        f"read: {user}: providers",
        "error: provider p has no key: set the variable UNSET.",
        "model: none configured",
    )


def test_loading_configuration_imports_neither_trio_nor_cattrs() -> None:
    """The command line reads configuration before it decides what else to load."""
    program = (
        "import sys, crush_trio.config.load, crush_trio.config.public, crush_trio.config.keys;"
        "print(sorted({'trio', 'cattrs', 'orjson'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "[]\n"
