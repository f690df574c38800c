"""What the doctor says of this side, of a server that is not what it should be, and to scripts."""

from __future__ import annotations

import json
import os
import shutil
from collections import namedtuple
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
import trio

from crush_trio import limits
from crush_trio.cli import doctor_here as here
from crush_trio.cli.doctor_flow import Wanted, doctor, exit_code, line
from crush_trio.cli.options import ServerFlags
from crush_trio.client.endpoint import TcpEndpoint, UnixEndpoint
from crush_trio.client.errors import BadAnswer, ServerRefused, Unreachable
from crush_trio.client.lines import json_lines
from crush_trio.client.locate import Target
from crush_trio.protocol.checks import Check

FLAGS = ServerFlags(None, None, None, autostart=False)


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the machine's own configuration."""
    for name in tuple(os.environ):
        if name.endswith("_API_KEY") or name.startswith(("XDG_", "CRUSH_TRIO")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def configured(tmp_path: Path, **files: str) -> Check:
    """The check of a directory with these files; ``user`` is the user's own."""
    work = tmp_path / "work"
    work.mkdir()
    user = tmp_path / "home" / ".config" / "crush-trio" / "config.json"
    user.parent.mkdir(parents=True)
    for name, text in files.items():
        (user if name == "user" else work / f"{name}.json").write_text(text)
    return here.configuration(str(work), Target(UnixEndpoint(tmp_path / "s"), None, tmp_path))


# --- this side ----------------------------------------------------------------------------


def test_the_program_tells_what_it_runs_on() -> None:
    check = here.program()
    assert check.status == "ok"
    assert f"Python {check.data['python']}" in check.seen


def test_a_data_directory_that_is_a_file_fails(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.touch()
    for path in (taken, taken / "below"):
        check = here.directory(FLAGS._replace(data_dir=str(path)))
        assert check.status == "fail"
        assert "--data-dir" in check.advice
        assert exit_code([check]) == 4


def test_a_data_directory_that_is_not_there_yet_is_not_made(tmp_path: Path) -> None:
    check = here.directory(FLAGS._replace(data_dir=str(tmp_path / "a" / "b")))
    assert (check.status, check.data["exists"]) == ("ok", False)
    assert not (tmp_path / "a").exists()


def test_little_room_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    free = limits.DOCTOR_FREE_BYTES - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 10**12 - free, free))
    check = here.directory(FLAGS._replace(data_dir=str(tmp_path)))
    assert (check.status, check.data["free_bytes"]) == ("warn", free)
    assert "512 MiB free" in check.seen


def test_a_socket_whose_path_is_too_long_fails(tmp_path: Path) -> None:
    check = here.socket(Target(UnixEndpoint(tmp_path / ("s" * 120)), None, tmp_path))
    assert (check.status, exit_code([check])) == ("fail", 4)
    assert here.socket(Target(TcpEndpoint("127.0.0.1", 1))).status == "ok"


def test_a_configuration_that_is_not_there_is_well(tmp_path: Path) -> None:
    check = configured(tmp_path)
    assert (check.status, check.advice) == ("ok", "")


def test_a_wrong_value_fails_with_its_file_and_path(tmp_path: Path) -> None:
    check = configured(tmp_path, user='{"options": {"debug": 3}}')
    assert (check.status, exit_code([check])) == ("fail", 4)
    assert "config.json" in check.seen
    assert "options.debug" in check.seen


def test_a_key_that_this_side_lacks_may_be_the_servers(tmp_path: Path) -> None:
    check = configured(tmp_path, user='{"providers": {"openai": {"api_key": "$OPENAI_API_KEY"}}}')
    assert check.status == "warn"
    assert "OPENAI_API_KEY" in check.seen


def test_an_untrusted_file_is_a_warning_that_names_the_cure(tmp_path: Path) -> None:
    check = configured(tmp_path, crush='{"providers": {"den": {"base_url": "http://den.test/v1"}}}')
    assert check.status == "warn"
    assert "providers" in check.seen
    assert "crush-trio config trust" in check.advice


# --- for people and for scripts -----------------------------------------------------------


def test_a_line_is_harmless_for_a_terminal_and_its_advice_stands_below() -> None:
    check = Check("model_list", "fail", "red\x1b[31m\nand \u202eback", "Do\rsomething.")
    assert line(check) == "FAIL  model list: red and back\n      Do something."
    assert line(Check("usage", "ok", "counted")) == "ok    usage: counted"


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        ((), 0),
        (("provider_unreachable",), 1),
        (("rate_limited", "provider_auth"), 4),
        (("provider_tls",), 4),
        (("tools_unsupported",), 4),
        (("key_missing", "server_unreachable"), 7),
        (("internal",), 1),
    ],
)
def test_the_exit_code_is_that_of_the_worst(codes: tuple[str, ...], code: int) -> None:
    assert exit_code([Check("model", "fail", "", code=each) for each in codes]) == code


# --- a server that is not what it should be ------------------------------------------------


@asynccontextmanager
async def answering(*answers: bytes, stay: bool = False) -> AsyncIterator[TcpEndpoint]:
    """Answers the n-th connection with the n-th bytes, and hangs up unless it is to ``stay``."""
    left = list(answers)

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some(65_536)
            await stream.send_all(left.pop(0) if left else b"")
            if stay:
                await stream.receive_some(1)

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(trio.serve_listeners, handle, listeners)
        yield TcpEndpoint("127.0.0.1", listeners[0].socket.getsockname()[1])
        nursery.cancel_scope.cancel()


HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n"
)


def chunked(text: bytes) -> bytes:
    """One chunk of a body."""
    return b"%x\r\n%b\r\n" % (len(text), text)


async def read(endpoint: TcpEndpoint, silence_s: float = 5.0) -> list[object]:
    """All lines of an answer."""
    async with aclosing(json_lines(endpoint, None, "/x", {}, silence_s=silence_s)) as lines:
        return [each async for each in lines]


async def test_lines_are_whole_however_they_are_cut() -> None:
    body = b'{"a":1}\n{"b":"\xc3\xa9"}\n'
    pieces = b"".join(chunked(bytes([each])) for each in body)
    async with answering(HEAD + pieces + b"0\r\n\r\n") as endpoint:
        assert await read(endpoint) == [{"a": 1}, {"b": "é"}]


async def test_an_answer_that_breaks_off_is_no_answer() -> None:
    async with answering(HEAD + chunked(b'{"a":1}\n')) as endpoint:
        with pytest.raises(Unreachable, match="hung up in the middle"):
            await read(endpoint)


async def test_a_refusal_comes_with_its_code() -> None:
    body = json.dumps({"message": "No such path.", "code": "not_found"}).encode()
    head = b"HTTP/1.1 404 X\r\ncontent-length: %d\r\n\r\n" % len(body)
    async with answering(head + body) as endpoint:
        with pytest.raises(ServerRefused) as refused:
            await read(endpoint)
    assert (refused.value.status, refused.value.code) == (404, "not_found")


async def test_who_speaks_something_else_is_named() -> None:
    for answer in (b"SSH-2.0-x\r\n\r\n", HEAD + chunked(b"no json\n") + b"0\r\n\r\n"):
        async with answering(answer) as endpoint:
            with pytest.raises(BadAnswer):
                await read(endpoint)


async def test_who_falls_silent_is_left() -> None:
    async with answering(HEAD, stay=True) as endpoint:
        with pytest.raises(Unreachable, match=r"silent for 0\.05 s"):
            await read(endpoint, silence_s=0.05)


# --- the whole command against such servers ------------------------------------------------

VERSION = {"version": "0.0.1", "protocol": 1, "server_id": "x", "pid": 1}


def whole(value: object, status: int = 200) -> bytes:
    """A complete JSON answer on a connection that ends with it."""
    body = json.dumps(value).encode()
    head = f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    return head.encode() + body


CHECK = b'{"name":"model","status":"ok","seen":"den/tiny","advice":"","code":"","data":{}}\n'


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (HEAD + chunked(CHECK) + b"0\r\n\r\n", 7, "before it had made all checks"),
        (HEAD + chunked(CHECK), 7, "hung up in the middle"),
        (whole({"message": "Nothing is here.", "code": "not_found"}, 404), 1, "is older than"),
        (HEAD + chunked(b'{"name":"x","status":"odd"}\n'), 7, "another shape"),
    ],
    ids=["ends early", "breaks off", "is older", "speaks differently"],
)
async def test_a_checkup_that_came_to_no_end_is_never_well(
    answer: bytes,
    code: int,
    words: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    opened = {"id": "w"}
    first = (whole(VERSION), whole(VERSION), whole(opened))
    async with answering(*first, answer) as endpoint:
        flags = ServerFlags(endpoint.url, str(tmp_path), None, autostart=False)
        wanted = Wanted(str(tmp_path), None, offline=False, require_model=False)
        got = await doctor(flags, wanted, as_json=True)
    told = json.loads(capfd.readouterr().out)
    by_name = {each["name"]: each for each in told["checks"]}
    assert told["ok"] is False
    assert words in str(by_name["checkup"])
    assert got == code
    assert by_name["server"]["status"] == "warn"  # it is of another version than this command
