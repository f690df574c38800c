"""``crush-trio completion``: real shells run the script it prints, and are offered what fits."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from crush_trio.cli.completion import SHELLS
from crush_trio.cli.group import COMMANDS
from crush_trio.models.catalogue.load import shipped
from crush_trio.protocol.sockets import default_socket_path
from tests.cli.live import LIMIT_S, Shell, make_shell

HEAVY = ("trio", "attr", "attrs", "cattrs", "quart", "hypercorn", "asyncio", "orjson", "rich")
BASH = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
[[ $(complete -p crush-trio) == *" -F "* ]] || exit 1
_crush_trio_completion crush-trio
printf '%s\\n' "${COMPREPLY[@]}"
"""
ZSH = """
autoload -U compinit && compinit -u -D
source "$1" || exit 1
[[ ${_comps[crush-trio]} == _crush_trio_completion ]] && print registered
"""


@pytest.fixture(scope="module")
def lone(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """Commands in an environment without a server, with ``crush-trio`` on the path."""
    shell = make_shell(tmp_path_factory.mktemp("ct"))
    bin_ = shell.root / "bin"
    bin_.mkdir()
    command = bin_ / "crush-trio"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m crush_trio "$@"\n')
    command.chmod(0o755)
    shell.environ["PATH"] = f"{bin_}:{shell.environ['PATH']}"
    return shell


def offered(shell: Shell, *words: str, **environ: str) -> dict[str, str]:
    """What is offered for the last of ``words``, with its help: the question that zsh asks."""
    done = shell.run(
        environ=shell.environ
        | environ
        | {
            "_CRUSH_TRIO_COMPLETE": "zsh_complete",
            "COMP_WORDS": " ".join(("crush-trio", *words)),
            "COMP_CWORD": str(len(words)),
        }
    )
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    return dict(zip(lines[1::3], lines[2::3], strict=True))


def script(shell: Shell, name: str) -> Path:
    """The file a user would source."""
    done = shell.run("completion", name)
    assert (done.code, done.err) == (0, "")
    path = shell.root / f"completion.{name}"
    path.write_text(done.out)
    return path


def run(program: str, code: str, shell: Shell, *words: str) -> list[str]:
    """The lines that a shell prints which runs ``code``."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed here")
    option = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[program]
    done = subprocess.run(
        [path, *option, "-c", code, program, str(script(shell, program)), *words],
        env=shell.environ,
        cwd=shell.work,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("d",), ["doctor"]),
        (("run", "--permission-mode", ""), ["ask", "deny", "allow"]),
        (("session", "sh"), ["shell", "show"]),
        (("completion", ""), list(SHELLS)),
        (("run", "-m", "offl"), ["offline/scout"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_bash_is_offered_what_fits(lone: Shell, words: tuple[str, ...], wanted: list[str]) -> None:
    assert run("bash", BASH, lone, "crush-trio", *words) == wanted


def test_zsh_takes_the_script(lone: Shell) -> None:
    assert run("zsh", ZSH, lone) == ["registered"]


def test_fish_is_offered_what_fits(lone: Shell) -> None:
    code = f'source {script(lone, "fish")}; complete -C "crush-trio doc"'
    assert [each.split("\t")[0] for each in run("fish", code, lone)] == ["doctor"]


@pytest.mark.parametrize("name", SHELLS)
def test_a_script_names_the_command_and_how_it_asks(lone: Shell, name: str) -> None:
    text = script(lone, name).read_text()
    assert f"_CRUSH_TRIO_COMPLETE={name}_complete" in text
    assert "crush-trio" in text


def test_an_unknown_shell_is_refused_with_those_that_are_known(lone: Shell) -> None:
    done = lone.run("completion", "csh")
    assert (done.code, done.out) == (2, "")
    assert "'bash', 'zsh', 'fish'" in done.err


def test_every_command_is_offered_with_what_it_does(lone: Shell) -> None:
    assert offered(lone, "") == {name: summary for name, (_, summary) in COMMANDS.items()}
    assert set(offered(lone, "--")) == {"--help", "--version"}


def test_completing_imports_nothing_heavy(lone: Shell) -> None:
    """Each Tab waits for it: trio and attrs alone would double the time."""
    code = (
        "import sys, atexit\n"
        f"heavy = {HEAVY}\n"
        "atexit.register(lambda: print('heavy', [n for n in heavy if n in sys.modules]))\n"
        "from crush_trio.cli.main import main\n"
        "sys.argv = ['crush-trio']\n"
        "main()\n"
    )
    asked = {"_CRUSH_TRIO_COMPLETE": "bash_complete", "COMP_WORDS": "crush-trio run -m off"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=lone.environ | asked | {"COMP_CWORD": "3"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.stdout.splitlines() == ["plain,offline/scout", "heavy []"], done.stderr


# --- models -------------------------------------------------------------------------------


def test_models_are_those_a_key_is_set_for_until_a_provider_is_typed(lone: Shell) -> None:
    models = [model for model in shipped().models() if model.provider == "anthropic"]
    names = {f"{model.provider}/{model.model}" for model in models}
    assert set(offered(lone, "run", "-m", "", ANTHROPIC_API_KEY="k")) == {"offline/scout", *names}
    others = set(offered(lone, "doctor", "-m", "openai/", ANTHROPIC_API_KEY="k"))
    assert others
    assert all(name.startswith("openai/") for name in others)
    assert len(offered(lone, "run", "-m", "")) == len(shipped().models()) + 1


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"providers": 3}', '{"providers": [{"id": "x", "models": [{}]}]}']
)
def test_a_broken_copy_of_the_catalogue_is_passed_over(lone: Shell, text: str) -> None:
    copy = Path(os.path.realpath(lone.data)) / "catalogue.json"
    copy.parent.mkdir(exist_ok=True)
    copy.write_text(text)
    assert len(offered(lone, "run", "-m", "")) == len(shipped().models()) + 1
    copy.unlink()


# --- sessions -----------------------------------------------------------------------------


def test_sessions_are_offered_while_a_server_runs(shell: Shell) -> None:
    assert shell.run("run", "-q", "list").code == 0
    done = shell.run("session", "list", "--json")
    ids = [each["id"] for each in json.loads(done.out)]
    assert ids
    assert list(offered(shell, "run", "-s", "")) == ["latest", *ids]
    assert list(offered(shell, "run", "-s", ids[0][:5])) == [ids[0]]


def test_without_a_server_none_is_started_for_it(lone: Shell) -> None:
    assert offered(lone, "run", "-s", "") == {}
    assert not (Path(os.path.realpath(lone.data)) / "server.log").exists()


@pytest.fixture
def stuck(lone: Shell) -> Iterator[None]:
    """A server that takes connections and says nothing."""
    path = default_socket_path(lone.data, lone.environ, os.getuid())
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        taken: list[socket.socket] = []
        thread = threading.Thread(target=lambda: taken.append(listener.accept()[0]), daemon=True)
        thread.start()
        yield
        thread.join(LIMIT_S)
        for each in taken:
            each.close()
    path.unlink()


@pytest.mark.usefixtures("stuck")
def test_a_server_that_does_not_answer_is_not_waited_for(lone: Shell) -> None:
    assert offered(lone, "run", "-s", "") == {}
