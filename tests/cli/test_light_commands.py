"""What works without a server, and what the cheapest calls may not import."""

from __future__ import annotations

import importlib.resources
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from crush_trio import __version__
from crush_trio.cli.group import COMMANDS, run_command_line
from crush_trio.cli.main import main
from tests.cli.live import LIMIT_S, Shell

HEAVY = ("trio", "attr", "attrs", "cattrs", "quart", "hypercorn", "asyncio", "orjson", "rich")
SUBCOMMANDS = [["session", "list"], ["session", "show"], ["session", "delete"],
               ["config", "show"], ["config", "path"], ["config", "check"]]  # fmt: skip


def test_help_and_version_import_nothing_heavy() -> None:
    """Goal 13: they must answer within 60 ms, and trio alone takes 100."""
    calls = [["--version"], ["--help"], *([name, "--help"] for name in COMMANDS)]
    calls += [[*words, "--help"] for words in SUBCOMMANDS]
    code = (
        "import sys\n"
        "from crush_trio.cli.main import main\n"
        f"for words in {calls}:\n"
        "    sys.argv = ['crush-trio', *words]\n"
        "    try:\n        main()\n"
        "    except SystemExit as end:\n        assert not end.code, (words, end.code)\n"
        f"    heavy = [name for name in {HEAVY} if name in sys.modules]\n"
        "    assert not heavy, (words, heavy)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.stderr == ""
    assert done.stdout.count("Usage: ") == len(calls) - 1


def test_the_run_path_imports_no_codec(lone_shell: Shell) -> None:
    """Goal 13: `run` is at most 1.6 times the price of trio and trio-websocket."""
    code = (
        "import sys, crush_trio.cli.run_flow; print('cattrs' in sys.modules, 'rich' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=LIMIT_S
    )
    assert done.stdout == "False False\n"


def test_the_version_is_told_with_and_without_the_parser(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["crush-trio", "--version"])
    main()
    assert run_command_line(["--version"]) == 0
    assert capfd.readouterr().out == f"crush-trio {__version__}\n" * 2


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["bogus"], "No such command 'bogus'"),
        (["run", "--bogus", "x"], "No such option '--bogus'"),
        (["run"], "no prompt"),
        (["run", "  "], "no prompt"),
        (["run", "-C"], "to go on with the last session use -c"),
        (["run", "-C", "say hello"], "to go on with the last session use -c"),
        (["run", "-C", "--json"], "to go on with the last session use -c"),
        (["run", "--fork", "x"], "cannot copy sessions"),
        (["run", "--tls-ca", "f", "x"], "speaks no TLS"),
        (["run", "-c", "-s", "a", "x"], "give one of them"),
        (["run", "-y", "--permission-mode", "deny", "x"], "contradict"),
        (["run", "--run-id", "a b", "x"], "1 to 128"),
        (["run", "-m", "script", "x"], "PROVIDER/MODEL"),
        (["run", "-f", "/nonexistent", "x"], "No such file"),
        (["run", "-o", "/nonexistent/x", "x"], "No such file"),
        (["run", "--timeout", "0", "x"], "--timeout"),
        (["run", "--server", "https://x:1", "x"], "speaks no TLS"),
        (["run", "--server", "nonsense", "x"], "tcp://HOST:PORT"),
        (["cancel"], "either a RUN or --session"),
        (["watch", "--after", "x"], "no number"),
        (["serve", "--idle-exit", "soon"], "neither a number of seconds nor `never`"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_usage_is_exit_2_with_a_sentence_and_an_empty_stdout(
    words: list[str],
    sentence: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert run_command_line(words) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert sentence in err
    assert not (tmp_path / "data").exists()  # nothing was started for it


def test_stdin_that_is_not_text_is_refused(lone_shell: Shell) -> None:
    done = lone_shell.run("run", stdin=b"abc\xff")
    assert done.code == 2
    assert "not valid UTF-8 (byte 3)" in done.err


def test_without_a_server_and_without_autostart_the_exit_code_is_7(lone_shell: Shell) -> None:
    for words in (["ps"], ["run", "x"], ["watch"]):
        done = lone_shell.run(*words, "--no-autostart")
        assert (done.code, done.out) == (7, "")
        assert "no server answers at unix://" in done.err


def test_a_named_server_that_is_away_is_never_replaced_by_a_local_one(lone_shell: Shell) -> None:
    done = lone_shell.run("run", "--server", "tcp://127.0.0.1:1", "--output-format", "json", "x")
    assert done.code == 7
    [result] = done.lines()
    assert result["type"] == "result"
    assert (result["outcome"], result["exit_code"], result["reason"]) == (None, 7, "unreachable")
    assert not lone_shell.data.exists()


def test_stream_json_has_its_first_and_last_line_even_without_a_server(lone_shell: Shell) -> None:
    done = lone_shell.run("run", "--no-autostart", "--json", "x")
    first, last = done.lines()
    assert (first["type"], last["type"]) == ("start", "result")
    assert first["run_id"] == last["run_id"]
    assert done.code == last["exit_code"] == 7


def test_stop_without_a_server_is_done(lone_shell: Shell) -> None:
    assert lone_shell.run("stop").code == 0


def test_without_a_home_the_sentence_says_what_to_set(lone_shell: Shell) -> None:
    bare = {"PATH": os.environ["PATH"]}
    done = lone_shell.run("ps", environ=bare)
    assert done.code == 4
    assert "--data-dir" in done.err


def test_a_reader_that_goes_away_makes_141(lone_shell: Shell) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "crush_trio", "run", "--help"],
        stdout=writer, stderr=subprocess.PIPE, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_behind_stdout_is_a_sentence(lone_shell: Shell) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "crush_trio", "schema", "events"],
            stdout=full, stderr=subprocess.PIPE, timeout=LIMIT_S, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == b"crush-trio: stdout cannot be written: No space left on device\n"


@pytest.mark.parametrize("which", ["config", "script", "events"])
def test_every_schema_is_json(which: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["schema", which]) == 0
    assert json.loads(capfd.readouterr().out)["$schema"].startswith("https://json-schema.org")


def test_the_configuration_is_shown_and_checked_without_a_server(lone_shell: Shell) -> None:
    shown = json.loads(lone_shell.run("config", "show", "--json").out)
    assert shown["limits"]["RECONNECT_TIMEOUT_S"] == 60.0
    assert "RECONNECT_TIMEOUT_S = 60.0" in lone_shell.run("config", "show").out
    paths = lone_shell.run("config", "path").out
    assert f"workspace: {lone_shell.work.resolve() / 'crush.json'}\n" in paths
    assert lone_shell.run("config", "check").code == 0
    (lone_shell.work / "crush.json").write_text('{"options": 3}')
    checked = lone_shell.run("config", "check")
    assert checked.code == 4
    assert "crush.json" in checked.out


def test_the_log_of_a_server_that_never_ran_is_a_sentence(lone_shell: Shell) -> None:
    done = lone_shell.run("logs")
    assert done.code == 1
    assert "no log at" in done.err


def test_the_stored_help_is_what_the_parser_says() -> None:
    """Contract 6: renew `help.txt` with the output of `help_text()`."""
    # In a process of its own: the parser keeps the help option of the first context it meets.
    code = "from crush_trio.cli.group import help_text; print(help_text(), end='')"
    rendered = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    stored = importlib.resources.files("crush_trio.cli").joinpath("help.txt").read_bytes()
    assert stored == rendered


def test_help_into_a_full_device_is_an_error_and_no_traceback() -> None:
    """G13."""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "crush_trio", "--help"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert "stdout cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(
    "words",
    [
        ("run", "x", "--timeout"),
        ("run", "x", "--idle-timeout"),
        ("run", "x", "--max-cost-usd"),
        ("run", "x", "--wait-timeout"),
        ("run", "x", "--reconnect-timeout"),
        ("session", "shell", "latest", "ls", "--timeout"),
        ("wait", "x", "--timeout"),
        ("serve", "--requeue-within"),
        ("serve", "--shutdown-timeout"),
    ],
)
def test_a_limit_is_a_number_that_limits(
    words: tuple[str, ...], number: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """G14: JSON has no word for them, and what was no limit at all was taken for one."""
    nowhere = ("--data-dir", "/proc/none")  # or it would start a server if it were accepted
    assert run_command_line([*words, number, *nowhere]) == 2
    assert f"{words[-1]}'" in capfd.readouterr().err


@pytest.mark.parametrize("option", [("--data-dir", "/x"), ("-H", "unix:///x"), ("--json",)])
def test_options_in_front_of_an_answer_are_refused(
    option: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    """G14: the answer went to another server than the one named."""
    assert run_command_line(["approvals", *option, "allow", "x", "--no-autostart"]) == 2
    assert "goes behind allow" in capfd.readouterr().err


def test_an_empty_run_id_is_refused_instead_of_waited_for() -> None:
    assert run_command_line(["wait", "", "--no-autostart"]) == 2
