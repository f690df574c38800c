"""What a sandbox is made of, before anything runs: its lists, its filter, what tools are told."""

from __future__ import annotations

import errno
import itertools
import os
import struct
import sys
import tempfile
from pathlib import Path

import pytest

from crush_trio.agent.ports import PROTECTED, Sandbox
from crush_trio.protocol.errors import ConfigError, Refused
from crush_trio.tools.sandbox import bubblewrap, syscalls
from crush_trio.tools.sandbox import mechanism as trying
from crush_trio.tools.sandbox.confinement import remove_private
from crush_trio.tools.sandbox.filter import program
from crush_trio.tools.sandbox.mechanism import Found, Mechanisms
from crush_trio.tools.sandbox.plan import Mechanism
from crush_trio.tools.sandbox.policy import Settings, sandbox_of, settings_of
from crush_trio.tools.sandbox.protected import protected_places, readable_places, writable_roots

# --- settings and modes --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "settings"),
    [
        (None, Settings()),
        ("read-only", Settings("read-only")),
        ({"mode": "workspace-write", "network": True}, Settings("workspace-write", True)),
        ({"writable": ["/a", "~/b"]}, Settings(writable=("/a", "~/b"))),
    ],
)
def test_settings_are_a_mode_or_a_table(value: object, settings: Settings) -> None:
    assert settings_of(value) == settings


@pytest.mark.parametrize(
    "value",
    ["none", {"mode": "on"}, {"network": "yes"}, {"writable": ["build"]}, {"writable": [1]}],
)
def test_settings_that_cannot_be_meant_are_refused(value: object) -> None:
    with pytest.raises(ConfigError, match=r"options\.sandbox"):
        settings_of(value)


@pytest.mark.parametrize(
    ("configured", "requested", "mode"),
    [
        ("off", None, None),
        ("read-only", None, "read-only"),
        ("read-only", "off", None),
        ("off", "workspace-write", "workspace-write"),
        ("workspace-write", "read-only", "read-only"),
    ],
)
def test_what_is_asked_for_counts_before_what_is_configured(
    configured: str, requested: str | None, mode: str | None, tmp_path: Path
) -> None:
    found = sandbox_of(Settings(configured), requested, tmp_path, home=tmp_path, own=())
    assert (None if found is None else found.mode) == mode


def test_only_workspace_write_makes_anything_writable(tmp_path: Path) -> None:
    settings = Settings(writable=("~/cache", "/srv/x"))
    made = {
        mode: sandbox_of(settings, mode, tmp_path, home=tmp_path / "h", own=())
        for mode in ("read-only", "workspace-write")
    }
    assert [each.writable for each in made.values() if each is not None] == [
        (),
        (tmp_path, tmp_path / "h" / "cache", Path("/srv/x")),
    ]


def test_secrets_behind_a_link_are_hidden_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / ".ssh").symlink_to(tmp_path / "keys")
    made = sandbox_of(Settings("read-only"), None, tmp_path / "ws", home=tmp_path, own=())
    assert made is not None
    assert made.why_not_read(tmp_path / "keys" / "id") is not None


# --- what tools in the server's own process are told -------------------------------------------

WS = Path("/home/a/ws")
BOX = Sandbox("workspace-write", WS, (WS, Path("/cache")), (Path("/home/a/.ssh"), Path("/data")))


@pytest.mark.parametrize(
    ("path", "may"),
    [
        ("a.py", True),
        ("src/crush.json", True),
        ("/cache/x", True),
        ("/home/a/x", False),
        ("/home/a/ws-other", False),
        ("/data/x", False),
        (".git/HEAD", True),
        (".git", False),
        (".git/config", False),
        (".GIT/Config", False),
        ("sub/.git/hooks/pre-commit", False),
        ("/cache/.git/commondir", False),
        *((name, False) for name in PROTECTED),
        (".vscode/tasks.json", False),
        (".vscode-like", True),
    ],
)
def test_files_are_written_in_writable_places_unless_they_are_protected(
    path: str, may: bool
) -> None:
    assert (BOX.why_not_write(WS / path) is None) == may


def test_a_read_only_sandbox_lets_nothing_be_written() -> None:
    said = Sandbox("read-only", WS).why_not_write(WS / "a.py")
    assert said is not None
    assert "read-only" in said


def test_outputs_of_tools_can_be_read_in_a_hidden_directory() -> None:
    box = Sandbox("read-only", WS, (), (Path("/data"),), (Path("/data/outputs/w/s"),))
    assert box.why_not_read(Path("/data/token")) is not None
    assert box.why_not_read(Path("/data/outputs/w/s/1.txt")) is None


# --- bubblewrap ----------------------------------------------------------------------------------


def test_what_lies_deeper_is_mounted_later(tmp_path: Path) -> None:
    home, tmp = tmp_path / "home", tmp_path / "tmp"
    for name in (".ssh", ".aws/ws", "ws"):
        (home / name).mkdir(parents=True)
    inner = home / ".aws" / "ws"
    hidden = (home / ".aws", home / ".ssh")
    box = Sandbox("workspace-write", home / "ws", (home, home / "ws", inner), hidden)
    argv = bubblewrap.arguments("bwrap", box, private_tmp=tmp, cwd=home, new_user=True)
    empty = argv.index("--tmpfs", argv.index(str(home)))
    assert argv[empty + 1] == str(home / ".aws")
    assert argv.index("/tmp") < argv.index(str(home)) < empty < argv.index(str(inner))
    assert argv.index("--remount-ro") > argv.index(str(inner))
    assert "--unshare-net" in argv


def test_a_writable_directory_in_another_one_is_no_second_way_in() -> None:
    home = Path("/home/me")
    roots = (home / "a", home / "a" / "b", home / "ab", home / "a" / "hidden" / "c")
    box = Sandbox("workspace-write", home / "a", roots, (home / "a" / "hidden",))
    assert writable_roots(box) == [roots[0], roots[2], roots[3]]
    inner = Sandbox("workspace-write", roots[1], (home, roots[1]), readable=(home / "venv",))
    assert (writable_roots(inner), readable_places(inner)) == ([home], [])


def test_what_lies_around_something_hidden_or_protected_cannot_be_moved_away(
    tmp_path: Path,
) -> None:
    for name in (".git/hooks", ".git/info", ".config/gh", "src"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / ".git/info/attributes").touch()
    places = protected_places(tmp_path, (tmp_path / ".config" / "gh", tmp_path / "not" / "there"))
    found = {str(Path(place).relative_to(tmp_path)): stays for place, stays in places.items()}
    assert found == {
        ".git": True,
        ".config": True,
        ".git/hooks": False,
        ".git/info": True,
        ".git/info/attributes": False,
    }
    assert [place.count("/") for place in places] == sorted(place.count("/") for place in places)


def test_programs_are_found_by_their_linked_name_below_what_is_replaced() -> None:
    """An environment below ``/tmp`` may be a link to another; elsewhere links are still there."""
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        programs, linked = Path(made) / "programs", Path(made) / "linked"
        programs.mkdir()
        linked.symlink_to(programs)
        box = sandbox_of(
            Settings(), "read-only", WS, home=Path("/h"), own=(), readable=(linked, Path("/bin"))
        )
        assert box is not None
        argv = bubblewrap.arguments("bwrap", box, private_tmp=Path("/t"), cwd=WS, new_user=True)
        mounted = [place for how, place in itertools.pairwise(argv) if how == "--ro-bind"]
    assert {str(programs), str(linked)} <= set(mounted)
    assert ("/bin" in mounted) == (not Path("/bin").is_symlink())


def test_temporary_files_have_their_place_where_the_workspace_is_the_one_for_all() -> None:
    tmp = Path("/tmp/private")
    for workspace, seen_as in ((WS, "/tmp"), (Path("/tmp/ws"), "/tmp"), (Path("/tmp"), str(tmp))):
        box = Sandbox("read-only", workspace)
        assert bubblewrap.tmp_seen_as(box, tmp) == seen_as


# --- the filter ----------------------------------------------------------------------------------


KILLED = -1


def answer(code: bytes, machine: str, number: int, *arguments: int) -> int:
    """What a filter says to a system call: 0 for yes, else the error it gives."""
    steps = [struct.unpack_from("=HBBI", code, at) for at in range(0, len(code), 8)]
    data = struct.pack("=II", number, syscalls.ARCHITECTURES[machine]) + bytes(8)
    data += b"".join(struct.pack("=Q", each) for each in (*arguments, *[0] * 6)[:6])
    at, loaded = 0, 0
    while True:
        operation, yes, no, operand = steps[at]
        at += 1
        match operation:
            case 0x20:
                loaded = struct.unpack_from("=I", data, operand)[0]
            case 0x54:
                loaded &= operand
            case 0x15:
                at += yes if loaded == operand else no
            case 0x35:
                at += yes if loaded >= operand else no
            case 0x45:
                at += yes if loaded & operand else no
            case 0x06:
                meaning: dict[int, int] = {0x7FFF0000: 0, 0x80000000: KILLED}
                return meaning[operand] if operand in meaning else int(operand & 0xFFFF)


@pytest.mark.parametrize(("column", "machine"), list(enumerate(syscalls.ARCHITECTURES)))
def test_the_filter_refuses_on_each_architecture_what_its_table_says(
    column: int, machine: str
) -> None:
    code = program(machine, (2, 10))
    assert code is not None
    asked = []
    for numbers, error in itertools.chain(
        ((each, errno.EPERM) for each in syscalls.REFUSED.values()),
        ((each, errno.ENOSYS) for each in syscalls.MISSING.values()),
    ):
        number = numbers[column]
        if number is not None:
            asked.append((answer(code, machine, number), error))
    assert all(said == error for said, error in asked)
    assert len(asked) > 45
    read, write = ((0, 1), (63, 64))[column]
    assert [answer(code, machine, number) for number in (read, write)] == [0, 0]
    socket, pair, clone, limit = (
        numbers[column]
        for numbers in (syscalls.SOCKET, syscalls.SOCKETPAIR, syscalls.CLONE, syscalls.PRLIMIT)
    )
    families = {family: answer(code, machine, socket, family) for family in (1, 2, 10, 16, 38)}
    assert families == {1: 1, 2: 0, 10: 0, 16: 1, 38: 1}
    pairs = [answer(code, machine, pair, *each) for each in ((1, 1), (1, 0x80005), (1, 2), (2, 1))]
    assert pairs == [0, 0, 1, 1]
    assert [answer(code, machine, clone, flags) for flags in (17, 0x10000011)] == [0, 1]
    assert [answer(code, machine, limit, pid) for pid in (0, 77)] == [0, 1]
    fchmod, openat = (91, 52)[column], (257, 56)[column]
    assert [answer(code, machine, fchmod, 3, mode) for mode in (0o755, 0o4755)] == [0, 1]
    opened = [answer(code, machine, openat, 0, 0, flags, 0o4755) for flags in (0, 0o100)]
    assert opened == [0, 1]


def test_calls_of_another_abi_of_the_same_machine_are_refused() -> None:
    code = program("x86_64", ())
    assert code is not None
    assert answer(code, "x86_64", 0x40000000 + 41, 2) == errno.ENOSYS
    assert answer(code, "aarch64", 63) == KILLED


def test_an_unknown_architecture_has_no_filter() -> None:
    assert program("riscv64", ()) is None


# --- which mechanism -----------------------------------------------------------------------------


def test_landlock_refuses_to_make_a_directory_writable_that_holds_secrets(tmp_path: Path) -> None:
    (tmp_path / ".ssh").mkdir()
    box = Sandbox("workspace-write", tmp_path, (tmp_path,), (tmp_path / ".ssh",))
    for mechanism, fine in (
        (Mechanism("landlock", abi=7, mounts=True), False),
        (Mechanism("bubblewrap"), False),  # what is around it could be moved away
        (Mechanism("bubblewrap", mounts=True), True),
    ):
        mechanisms = Mechanisms({})
        mechanisms._found = Found(mechanism)
        if fine:
            assert mechanisms.demand(box) is mechanism
        else:
            with pytest.raises(Refused, match="takes bubblewrap"):
                mechanisms.demand(box)


def test_what_an_earlier_server_has_left_keeps_no_server_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program may tidy at the same time, and the place may be one that nobody may list."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left, others = tmp_path / "p-abcdefgh", tmp_path / "p-abcdefgh-of-somebody"
    (left / "sub").mkdir(parents=True)
    others.mkdir()
    monkeypatch.setattr(os, "listdir", lambda place: ["p-gonegone", left.name, others.name])
    remove_private("p-")
    assert not left.exists()
    assert others.exists()

    def forbidden(place: Path) -> list[str]:
        raise PermissionError(errno.EACCES, "Permission denied", str(place))

    monkeypatch.setattr(os, "listdir", forbidden)
    remove_private("p-")


@pytest.mark.skipif(sys.platform != "linux", reason="there are no sandboxes elsewhere")
def test_a_trial_that_cannot_be_made_is_a_reason_and_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trying, "abi", lambda: trying.LANDLOCK_LEAST)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    found = trying.find("landlock")
    assert found.mechanism is None
    assert "a trial cannot be made: No such file or directory" in found.sentence()
