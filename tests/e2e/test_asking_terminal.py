"""A person at the terminal of a ``run`` that waits: what is shown, what is typed, what counts."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.asking_kit import grant, on_a_terminal, pending, wants, wonders
from tests.e2e.kit import Server, script


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all of them."""
    server = Server(tmp_path_factory.mktemp("s")).start()
    yield server
    server.kill()


@pytest.fixture
def model(home: Path) -> str:
    """A model that wants to make a file."""
    return wants(home, "touch made")


@pytest.mark.parametrize(
    ("said", "code"),
    [(("y",), 0), (("s", "y"), 0), (("n not today",), 3), (("d", "not today"), 3)],
    ids=["yes", "session", "no", "why"],
)
def test_a_person_at_the_terminal_is_asked_there(
    server: Server, project: Path, model: str, said: tuple[str, ...], code: int
) -> None:
    with on_a_terminal(server, project, "-m", model) as (process, terminal):
        terminal.expect("allow?")
        assert "bash (execute) in" in terminal.shown
        assert "touch made" in terminal.shown
        terminal.type("?")
        terminal.expect("rest of this session exactly this command in")
        terminal.expect("allow?")
        for line, asked in zip(said, ("", "tell the model" if code else "back:"), strict=False):
            if asked:
                terminal.expect(asked)
            terminal.type(line)
        out, _ = process.communicate(timeout=30)
        assert (process.returncode, out) == (code, "" if code else "made it\n")
    assert (project / "made").exists() is (code == 0)
    assert "crush-trio approvals" not in terminal.shown


def test_a_request_answered_elsewhere_is_not_asked_about_any_more(
    server: Server, project: Path, model: str
) -> None:
    """R68."""
    with on_a_terminal(server, project, "-m", model) as (process, terminal):
        terminal.expect("allow?")
        w = server.workspace(project)
        [item] = pending(server, w)
        assert grant(server, w, item["request"], "allow")["resolved"]
        terminal.expect("── allowed elsewhere by local")
        out, _ = process.communicate(timeout=30)
        assert (process.returncode, out) == (0, "made it\n")


def test_ctrl_c_at_the_prompt_ends_the_run_and_says_so(
    server: Server, project: Path, model: str
) -> None:
    with on_a_terminal(server, project, "-m", model) as (process, terminal):
        terminal.expect("allow?")
        process.send_signal(signal.SIGINT)
        terminal.expect("── withdrawn, since the run was ended by local")
        process.communicate(timeout=30)
        assert process.returncode == 130
    assert "elsewhere" not in terminal.shown
    assert not (project / "made").exists()


def test_questions_are_asked_at_the_terminal(server: Server, home: Path, project: Path) -> None:
    with on_a_terminal(server, project, "-m", wonders(home)) as (process, terminal):
        terminal.expect("Which format?")
        terminal.expect("empty skips")
        assert "2. CSV" in terminal.shown
        terminal.type("2")
        terminal.expect("y or n")
        terminal.type("")
        out, _ = process.communicate(timeout=30)
        assert (process.returncode, out) == (0, "thank you\n")


def test_what_was_typed_before_the_question_answers_nothing(
    server: Server, home: Path, project: Path
) -> None:
    """T23: neither keys that came too early nor an empty line; one request follows the other."""
    both = wants(home, "touch one", "touch two")
    with on_a_terminal(server, project, "-m", both) as (process, terminal):
        terminal.expect("    touch one")
        terminal.type("y")  # meant for something else
        terminal.expect("allow?")
        terminal.type("")
        terminal.expect("allow?")
        assert not (project / "one").exists()
        terminal.type("y")
        terminal.expect("    touch two")
        terminal.expect("allow?")
        terminal.type("s")
        terminal.expect("back: ")
        terminal.type("")  # what lasts needs a second yes
        terminal.expect("allow?")
        [item] = pending(server, server.workspace(project))
        assert item["request"]["params"]["command"] == "touch two"
        terminal.type("n")
        process.communicate(timeout=30)
        assert process.returncode == 3
    assert sorted(path.name for path in project.iterdir() if path.suffix == "") == ["one"]


def test_what_is_longer_than_the_screen_is_seen_to_its_end_before_it_can_be_allowed(
    server: Server, home: Path, project: Path
) -> None:
    """T20: newlines and blanks do not hide the end, and no escape acts."""
    command = "touch made" + "\n" * 60 + " " * 300 + "; rm -rf here\x1b[2K\u202e"
    with on_a_terminal(server, project, "-m", wants(home, command)) as (process, terminal):
        terminal.expect("more rows: [m]ore, [a]ll, [n]o -- ")
        assert "    touch made" in terminal.shown
        assert "; rm -rf here<U+" not in terminal.shown
        terminal.type("y")
        terminal.expect("more rows")
        assert "allow?" not in terminal.shown
        terminal.type("m")
        terminal.expect("more rows")
        terminal.type("a")
        terminal.expect("allow?")
        assert "; rm -rf here<U+001B>[2K<U+202E>" in terminal.shown
        terminal.type("n")
        process.communicate(timeout=30)
        assert process.returncode == 3
    assert not (project / "made").exists()


def test_what_was_cut_to_fit_a_frame_is_fetched_whole_before_it_is_asked_about(
    server: Server, home: Path, project: Path
) -> None:
    """T20: nobody allows a file of which he was shown a half."""
    content = "marmot\n" * 90_000 + "the end"
    write = {"tool": "write", "input": {"file_path": "big.txt", "content": content}}
    model = script(home / "big.json", [write], [{"text": "ok"}])
    with on_a_terminal(server, project, "-m", model) as (process, terminal):
        terminal.expect("more rows: ")
        rows = re.findall(r"-- (\d+) more rows", terminal.shown)
        assert int(rows[0]) > 89_900
        terminal.type("no")
        process.communicate(timeout=30)
        assert process.returncode == 3
    assert not (project / "big.txt").exists()


def test_an_interrupt_at_the_question_cancels_the_run(
    server: Server, project: Path, model: str
) -> None:
    """G4, R69."""
    with on_a_terminal(server, project, "-m", model) as (process, terminal):
        terminal.expect("allow?")
        [item] = pending(server, w := server.workspace(project))
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        assert process.returncode == 130
    assert grant(server, w, item["request"], "allow")["ending"] == "withdrawn"
    assert server.record(item["run_id"])["outcome"] == "cancelled"
    assert not (project / "made").exists()
