"""Commands in values: what they see, and that they are bounded (CW 10.3)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crush_trio import limits
from crush_trio.config.access import Reached, check_url, reach
from crush_trio.config.command import run_command
from crush_trio.protocol.errors import ConfigError

ENVIRON = {"PATH": os.environ["PATH"], "KEY": "k 1"}


@pytest.mark.parametrize(
    ("command", "output"),
    [
        ("echo sk-1", "sk-1"),
        ("printf 'a\\n\\nb\\n\\n'", "a\n\nb"),
        ('echo "<$KEY>"', "<k 1>"),
        ("", ""),
        ("cat", ""),  # stdin is empty
        ("echo ä", "ä"),
        ("echo no >&2; echo yes", "yes"),
        ("exec >&-; echo done >&2", ""),
    ],
)
def test_the_value_is_what_the_shell_writes_without_the_last_newlines(
    command: str, output: str
) -> None:
    assert run_command(command, ENVIRON) == output


def test_a_command_sees_the_look_up_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """G12."""
    monkeypatch.setenv("SERVER_SECRET", "s")
    environ = {**ENVIRON, "NO\0PE": "x", "A=B": "x", "BAD": "\0"}
    seen = run_command("env", environ).splitlines()
    assert "KEY=k 1" in seen
    assert not [line for line in seen if line.startswith(("SERVER_SECRET", "A=B", "BAD", "NO"))]


def test_a_command_runs_in_the_home_directory_and_never_in_a_repository(tmp_path: Path) -> None:
    """G12: what a repository holds must not change what a user's own command does."""
    assert run_command("pwd -P", {**ENVIRON, "HOME": str(tmp_path)}) == str(tmp_path.resolve())
    assert run_command("pwd", ENVIRON) == "/"
    assert run_command("pwd", {**ENVIRON, "HOME": "here"}) == "/"


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("exit 3", "a $(command) ended with exit code 3."),
        ("echo sk-1; echo first >&2; echo 'not \x1b[31mfound.' >&2; false",
         "a $(command) ended with exit code 1: not  [31mfound."),
        ("kill -9 $$", "a $(command) was ended by signal 9."),
        (f"head -c {limits.CONFIG_COMMAND_BYTES + 1} /dev/zero | tr '\\0' x",
         "a $(command) wrote more than 65536 bytes."),
        ("yes", "a $(command) wrote more than 65536 bytes."),
        ("printf '\\377'", "a $(command) wrote something that is not UTF-8 text."),
        ("printf 'a\\000b'", "a $(command) wrote a NUL character."),
        ("a\0b", "a $(command) cannot be started."),
    ],
)  # fmt: skip
def test_a_command_that_fails_is_one_sentence_without_its_text_or_output(
    command: str, sentence: str
) -> None:
    """G12, G14."""
    with pytest.raises(ConfigError) as caught:
        run_command(command, ENVIRON)
    assert str(caught.value) == sentence


def test_what_a_command_says_at_length_is_cut() -> None:
    with pytest.raises(ConfigError) as caught:
        run_command("yes x | head -c 300 | tr -d '\\n' >&2; exit 1", ENVIRON)
    assert str(caught.value).endswith(": " + "x" * 150 + ".")
    with pytest.raises(ConfigError) as caught:
        run_command("yes x | head -c 600 | tr -d '\\n' >&2; exit 1", ENVIRON)
    assert str(caught.value).endswith(": " + "x" * 200 + "….")


def _gone(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


def _wait_gone(pid: int) -> None:
    deadline = time.monotonic() + 5
    while not _gone(pid):
        assert time.monotonic() < deadline, "it is still there"
        time.sleep(0.01)


def test_a_command_without_end_is_killed_with_all_it_has_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """G10."""
    monkeypatch.setattr(limits, "CONFIG_COMMAND_S", 0.3)
    pids = tmp_path / "pids"
    command = f"trap '' TERM; sleep 60 & echo $! >{pids}; echo $$ >>{pids}; wait"
    before = time.monotonic()
    with pytest.raises(ConfigError, match=r"a \$\(command\) took longer than 0.3 s"):
        run_command(command, ENVIRON)
    assert time.monotonic() - before < 5
    for pid in pids.read_text().split():
        _wait_gone(int(pid))


@pytest.mark.parametrize("command", ["sleep 60", "exec >&- 2>&-; sleep 60"])
def test_a_command_nobody_waits_for_any_more_is_killed(tmp_path: Path, command: str) -> None:
    """G10."""
    pid = tmp_path / "pid"

    def give_up() -> None:
        if pid.exists() and pid.read_text():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_command(f"echo $$ >{pid}; {command}", ENVIRON, check=give_up)
    _wait_gone(int(pid.read_text()))


def test_what_a_command_leaves_behind_neither_delays_its_value_nor_stays(tmp_path: Path) -> None:
    """G10."""
    pid = tmp_path / "pid"
    before = time.monotonic()
    assert run_command(f"sleep 60 & echo $! >{pid}; echo key", ENVIRON) == "key"
    assert time.monotonic() - before < 5
    _wait_gone(int(pid.read_text()))


def test_what_goes_on_talking_after_the_shell_has_ended_is_not_listened_to() -> None:
    before = time.monotonic()
    assert run_command("yes >&2 & echo key", ENVIRON) == "key"
    assert time.monotonic() - before < 5


def test_a_command_cannot_read_what_its_server_is_given() -> None:
    program = (
        "import os; from crush_trio.config.command import run_command;"
        "print(repr(run_command('cat', dict(os.environ))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input="typed", capture_output=True, text=True, check=True
    )
    assert done.stdout == "''\n"


def test_who_hides_from_the_group_cannot_hold_up_the_value(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    before = time.monotonic()
    hides = "import os, time; os.setsid(); print(os.getpid(), flush=True, file=open(3, 'w'));" \
        " time.sleep(60)"  # fmt: skip
    command = f'python3 -c "{hides}" 3>{pid} & while ! [ -s {pid} ]; do :; done; echo key'
    assert run_command(command, ENVIRON) == "key"
    assert time.monotonic() - before < 8
    os.kill(int(pid.read_text()), signal.SIGKILL)


def test_a_provider_is_reached_by_its_expanded_templates() -> None:
    provider = {
        "base_url": " https://$HOST/v1 ",
        "api_key": "$(echo $NAME)",
        "api_version": "${VERSION:-2024-10-21}",
        "extra_headers": {"X-Team": "$TEAM", "X-Key": "Bearer $(echo t)", "X-None": "$UNSET"},
    }
    environ = {**ENVIRON, "HOST": "h.example", "NAME": "n", "TEAM": "a b"}
    found = reach("p", provider, environ, run_command=run_command)
    assert found == Reached(
        "https://h.example/v1", "n", {"X-Team": "a b", "X-Key": "Bearer t"}, "2024-10-21"
    )
    assert "Bearer" not in repr(found)
    assert "'n'" not in repr(found)
    assert reach("p", {}, {}, run_command=None) == Reached()


@pytest.mark.parametrize(
    ("provider", "words"),
    [
        ({"base_url": "$SECRET"}, "providers.p.base_url: expected an address that begins with"),
        ({"api_key": "$LINES"}, "providers.p.api_key: holds a line break"),
        ({"extra_headers": {"A": "$LINES"}}, "providers.p.extra_headers.A: holds a line break"),
        ({"extra_headers": {"A B": "x"}}, "providers.p.extra_headers: expected names of HTTP"),
        ({"api_key": "secret$"}, "providers.p.api_key: a $ without the name of a variable"),
    ],
)
def test_what_cannot_be_sent_is_refused_without_being_quoted(
    provider: dict[str, str], words: str
) -> None:
    """G12, G14."""
    environ = {"SECRET": "secret", "LINES": "secret\r\nX: y"}
    with pytest.raises(ConfigError) as caught:
        reach("p", provider, environ, run_command=None)
    assert str(caught.value).startswith(words)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["localhost:1234", "ftp://a", "https://", "http://a b", "http://a:x", "http://[", "//a"]
)
def test_an_address_needs_a_scheme_and_a_host(url: str) -> None:
    """G14."""
    with pytest.raises(ConfigError, match=r"w: expected an address"):
        check_url(url, "w")
