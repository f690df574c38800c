"""``crush-trio models`` against a real server: what can be used, what it costs, a newer list."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import click
import pytest

from crush_trio.cli.models import command
from crush_trio.models.catalogue.load import load, shipped
from tests.cli.live import Shell, make_shell
from tests.models.catalogue.kit import file, raw


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Shell, str]]:
    """Commands beside a server of their own: a refresh would show in other tests."""
    found = make_shell(tmp_path_factory.mktemp("ct"))
    with found.serving() as url:
        yield found, url.removeprefix("unix://")


@pytest.fixture(scope="module")
def shell(served: tuple[Shell, str]) -> Shell:
    """The commands."""
    return served[0]


def _listed(shell: Shell, *words: str, **environ: str) -> dict[str, dict[str, Any]]:
    done = shell.run("models", "--json", *words, environ=shell.environ | environ)
    assert done.code == 0, done.err
    return {f"{each['provider']}/{each['model']}": each for each in json.loads(done.out)}


@pytest.fixture(scope="module")
def everything(shell: Shell) -> dict[str, dict[str, Any]]:
    """All models there are, without any key."""
    return _listed(shell, "--all")


def test_without_a_key_there_is_the_planner_and_a_word_about_the_rest(shell: Shell) -> None:
    done = shell.run("models")
    assert done.out.splitlines()[1:] == ["offline/scout  (no language model)  large"]
    assert done.err == f"{len(shipped().models())} more are known: --all lists them, too\n"


def test_all_lists_every_model_and_says_which_can_be_used(
    everything: dict[str, dict[str, Any]],
) -> None:
    names = {f"{model.provider}/{model.model}" for model in shipped().models()}
    assert set(everything) == {*names, "offline/scout"}
    assert [name for name, each in everything.items() if each["available"]] == ["offline/scout"]
    planner = everything["offline/scout"]
    assert (planner["chosen"], planner["is_language_model"]) == ("large", False)


def test_a_price_that_nobody_knows_is_null_and_a_question(
    shell: Shell, everything: dict[str, dict[str, Any]]
) -> None:
    unknown = next(model for model in shipped().models() if model.cost_per_1m_in is None)
    name = f"{unknown.provider}/{unknown.model}"
    assert everything[name]["cost_per_1m_in"] is everything[name]["cost_per_1m_out"] is None
    lines = shell.run("models", "--all", "--provider", unknown.provider).out.splitlines()
    assert len(lines) == 1 + len(shipped().by_id[unknown.provider].models)
    (line,) = (line for line in lines if line.split()[0] == name)
    assert line.split()[3:5] == ["?", "?"]


def test_a_key_in_the_environment_of_the_command_makes_a_provider_usable(shell: Shell) -> None:
    found = _listed(shell, ANTHROPIC_API_KEY="sk-test")
    assert {each["provider"] for each in found.values()} == {"anthropic", "offline"}
    provider = shipped().by_id["anthropic"]
    chosen = {each["chosen"]: name for name, each in found.items() if each["chosen"]}
    assert chosen == {
        "large": f"anthropic/{provider.default_large}",
        "small": f"anthropic/{provider.default_small}",
    }


def test_the_model_that_the_configuration_names_is_marked(shell: Shell) -> None:
    place = shell.root / "configured"
    place.mkdir()
    large = {"provider": "openai", "model": "gpt-5"}
    (place / "crush.json").write_text(json.dumps({"models": {"large": large}}))
    found = _listed(shell, "-C", str(place), OPENAI_API_KEY="sk-test")
    assert found["openai/gpt-5"]["chosen"] == "large"
    without_key = _listed(shell, "-C", str(place))
    assert without_key["offline/scout"]["chosen"] is None, "a run would be refused, not planned"


def test_what_matches_only_what_cannot_be_used_is_said(shell: Shell) -> None:
    done = shell.run("models", "haiku", "--provider", "anthropic")
    assert (done.code, done.out) == (1, "")
    assert done.err == "1 more is known: --all lists them, too\n"


@pytest.mark.parametrize(
    ("method", "target", "body", "status", "said"),
    [
        ("GET", "/v1/models?all=maybe", b"", 400, "`all` must be true or false."),
        ("GET", "/v1/models?workspace_id=nowhere", b"", 404, "nowhere"),
        ("GET", "/v1/models?client_id=me", b"", 400, "client_id"),
        ("POST", "/v1/models/refresh", b'{"url": 7}', 400, "$.url"),
        ("POST", "/v1/models/refresh", b'{"url": "ftp://x"}', 400, "must begin with https://"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_with_a_sentence(
    served: tuple[Shell, str], method: str, target: str, body: bytes, status: int, said: str
) -> None:
    with socket.socket(socket.AF_UNIX) as wire:
        wire.connect(served[1])
        connection = http.client.HTTPConnection("localhost")
        connection.sock = wire
        connection.request(method, target, body)
        answer = connection.getresponse()
        assert answer.status == status
        assert said in json.loads(answer.read())["message"]


# --- a newer list ---------------------------------------------------------------------------


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        newer = {**file(), "date": shipped().date[:-2] + "28"}
        body = raw(newer) if self.path == "/good.json" else b"<html>"
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (its name there)
        """Nothing on the terminal."""


@pytest.fixture
def lists() -> Iterator[str]:
    """The address of a server with a good list and a bad one."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_refresh_that_fails_leaves_the_list_and_says_why(shell: Shell, lists: str) -> None:
    done = shell.run("models", "--refresh", f"{lists}/bad.json")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(f"crush-trio: {lists}/bad.json: not valid JSON: ")
    assert not (shell.data / "catalogue.json").exists()


def test_a_refresh_takes_no_filter() -> None:
    with pytest.raises(click.UsageError, match="--refresh takes nothing but an address"):
        command.main(["haiku", "--refresh"], standalone_mode=False)


def test_a_newer_list_counts_at_once_and_stays(
    tmp_path_factory: pytest.TempPathFactory, lists: str
) -> None:
    shell = make_shell(tmp_path_factory.mktemp("ct"))
    config = shell.root / "home" / ".config" / "crush-trio" / "config.json"
    config.parent.mkdir(parents=True)
    config.write_text(json.dumps({"options": {"catalogue_url": f"{lists}/good.json"}}))
    with shell.serving():
        done = shell.run("models", "--refresh")
        assert done.code == 0, done.err
        assert f"from {lists}/good.json" in done.out.splitlines()[0]
        assert "added: openai/large-1, openai/small-1" in done.out
        models = _listed(shell, "--provider", "openai", OPENAI_API_KEY="sk-test")
        assert {name: each["chosen"] for name, each in models.items()} == {
            "openai/large-1": "large",
            "openai/small-1": "small",
        }
        again = json.loads(shell.run("models", "--refresh", "--json").out)
        assert again["is_new"] is False
    kept = load(shell.data / "catalogue.json")
    assert [model.model for model in kept.by_id["openai"].models] == ["large-1", "small-1"]


def test_help_loads_no_server() -> None:
    code = (
        "import sys\nfrom crush_trio.cli.main import main\n"
        "sys.argv = ['crush-trio', 'models', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print('trio' in sys.modules, 'attrs' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.splitlines()[-1] == "False False"
