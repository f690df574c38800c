"""Binding: never a living server pushed aside, never a file or directory others can enter."""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from crush_trio.protocol.errors import ConfigError
from crush_trio.protocol.sockets import (
    PATH_BYTES_MAX,
    check_socket_directory,
    default_socket_path,
    make_socket_directory,
)
from crush_trio.server.edge.sockets import BoundSocket, TcpBind, UnixBind, bind, parse_host

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "dir" / "s.sock"


def connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        return True


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


# --- where ---------------------------------------------------------------------------------


def test_the_default_socket_depends_on_the_real_path_of_the_data_directory(tmp_path: Path) -> None:
    data, link = tmp_path / "data", tmp_path / "link"
    data.mkdir()
    link.symlink_to(data)
    digest = hashlib.sha256(os.fsencode(os.path.realpath(data))).hexdigest()[:16]
    runtime, uid = {"XDG_RUNTIME_DIR": str(tmp_path)}, os.getuid()
    expected = tmp_path / "crush-trio" / f"{digest}.sock"
    assert default_socket_path(data, runtime, uid) == expected
    assert default_socket_path(link, runtime, uid) == expected


@pytest.mark.parametrize("runtime", [None, "", "relative", "/nonexistent/7", __file__, "theirs"])
def test_without_a_runtime_directory_of_ours_the_socket_is_below_tmp(
    tmp_path: Path, runtime: str | None
) -> None:
    uid = os.getuid()
    if runtime == "theirs":
        runtime, uid = str(tmp_path), os.getuid() + 1
    environ = {} if runtime is None else {"XDG_RUNTIME_DIR": runtime}
    found = default_socket_path(tmp_path, environ, uid)
    assert found.parent == Path(f"/tmp/crush-trio-{uid}")


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("unix:///run/me/s.sock", UnixBind(Path("/run/me/s.sock"))),
        ("unix:///run/with space?and#marks", UnixBind(Path("/run/with space?and#marks"))),
        ("tcp://127.0.0.1:0", TcpBind("127.0.0.1", 0)),
        ("tcp://localhost:8080/", TcpBind("localhost", 8080)),
        ("tcp://[::1]:8080", TcpBind("::1", 8080)),
    ],
)
def test_an_address_is_understood(url: str, address: object) -> None:
    assert parse_host(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8080",
        "http://localhost:8080",
        "npipe:////./pipe/x",
        "unix://relative.sock",
        "unix://",
        "unix:/run/x.sock",
        "tcp://",
        "tcp://localhost",
        "tcp://:8080",
        "tcp://localhost:99999",
        "tcp://localhost:eighty",
        "tcp://user@localhost:8080",
        "tcp://localhost:8080/base",
        "tcp://localhost:8080?x=1",
        "tcp://localhost:8080#x",
        "tcp://[::1:8080",
    ],
)
def test_anything_else_is_refused_in_one_sentence(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_host(url)
    assert "\n" not in str(refused.value)
    assert "unix:///" in str(refused.value)


def test_a_path_too_long_for_the_kernel_is_refused_in_one_sentence(tmp_path: Path) -> None:
    long = tmp_path / ("x" * (PATH_BYTES_MAX + 1 - len(os.fsencode(tmp_path)) - 1))
    assert len(os.fsencode(long)) == PATH_BYTES_MAX + 1
    with pytest.raises(ConfigError, match=f"{PATH_BYTES_MAX + 1} bytes long .* --host"):
        bind(UnixBind(long))
    with bind(UnixBind(long.with_name(long.name[:-1]))) as bound:
        assert connects(Path(bound.url.removeprefix("unix://")))


# --- the directory -------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_directory_socket_and_lock_are_ours_alone_whatever_the_umask(
    path: Path, umask: int
) -> None:
    before = os.umask(umask)
    try:
        with bind(UnixBind(path)) as bound:
            assert bound.url == f"unix://{path}"
            assert mode(path.parent) == 0o700
            assert mode(path) == 0o600
            assert mode(path.with_name("s.sock.lock")) & 0o177 == 0
            assert connects(path)
    finally:
        os.umask(before)


def test_the_lock_goes_with_the_socket_and_never_guards_a_removed_file(path: Path) -> None:
    """G11: nothing is left beside the socket; who comes in between looks for the file again."""
    lock = path.with_name("s.sock.lock")
    with bind(UnixBind(path)):
        early = os.open(lock, os.O_RDWR)  # as one that opened the file and has not locked it yet
    assert list(path.parent.iterdir()) == []
    fcntl.flock(early, fcntl.LOCK_EX)  # it would hold nothing
    with bind(UnixBind(path)):
        assert os.stat(lock).st_ino != os.fstat(early).st_ino
        with pytest.raises(ConfigError, match=f"process {os.getpid()}"):
            bind(UnixBind(path))
    os.close(early)


def test_a_lock_that_is_removed_while_it_is_waited_for_is_taken_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.flock
    first: list[int] = []

    def flock(descriptor: int, how: int) -> None:
        if not first:
            first.append(descriptor)
            path.with_name("s.sock.lock").unlink()  # the holder ends right now
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with bind(UnixBind(path)), pytest.raises(ConfigError, match="already listens"):
        bind(UnixBind(path))
    assert first


def test_the_socket_is_never_wider_than_0600_not_even_between_bind_and_chmod(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    chmod = os.chmod

    def watched(target: Path, wanted: int) -> None:
        if Path(target) == path:
            seen.append(mode(path))
        chmod(target, wanted)

    monkeypatch.setattr(os, "chmod", watched)
    before = os.umask(0)
    try:
        bind(UnixBind(path)).close()
    finally:
        os.umask(before)
    assert seen == [0o600]


def test_a_directory_open_to_others_is_refused(path: Path) -> None:
    path.parent.mkdir()
    for open_mode in (0o701, 0o710, 0o750, 0o755, 0o1777):
        path.parent.chmod(open_mode)
        with pytest.raises(ConfigError, match="open to others"):
            bind(UnixBind(path))
    assert list(path.parent.iterdir()) == []
    path.parent.chmod(0o700)
    bind(UnixBind(path)).close()


def test_a_link_in_place_of_the_directory_is_refused(path: Path, tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir(0o700)
    path.parent.symlink_to(real)
    with pytest.raises(ConfigError, match="no link"):
        bind(UnixBind(path))
    assert list(real.iterdir()) == []


def test_a_directory_of_somebody_else_is_refused_by_both_sides(path: Path) -> None:
    make_socket_directory(path.parent, os.getuid())
    for check in (make_socket_directory, check_socket_directory):
        with pytest.raises(ConfigError, match=f"belongs to user {os.getuid()}, not to you"):
            check(path.parent, os.getuid() + 1)
    check_socket_directory(path.parent, os.getuid())


def test_a_missing_parent_of_the_directory_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be made"):
        bind(UnixBind(tmp_path / "a" / "b" / "s.sock"))
    with pytest.raises(ConfigError, match="does not exist"):
        check_socket_directory(tmp_path / "a", os.getuid())


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a second user")
def test_another_user_can_neither_connect_nor_see_the_socket(path: Path) -> None:
    with bind(UnixBind(path)):
        for parent in list(path.parents)[1:-1]:
            if "pytest" in parent.name:
                parent.chmod(0o755)
        attempt = textwrap.dedent(f"""
            import os, socket
            os.setgroups([]); os.setgid(65534); os.setuid(65534)
            try:
                socket.socket(socket.AF_UNIX).connect({str(path)!r})
            except PermissionError:
                print("denied")
        """)
        run = [sys.executable, "-c", attempt]
        assert subprocess.run(run, capture_output=True, check=True).stdout == b"denied\n"


# --- living and dead servers ---------------------------------------------------------------


@pytest.fixture
def other_server(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that has bound ``path`` and listens until it is killed."""
    source = textwrap.dedent(f"""
        import sys, time
        from pathlib import Path
        from crush_trio.server.edge.sockets import UnixBind, bind
        kept = bind(UnixBind(Path({str(path)!r})))
        print("ready", flush=True)
        time.sleep(60)
    """)
    with subprocess.Popen([sys.executable, "-c", source], cwd=ROOT, stdout=subprocess.PIPE) as one:
        assert one.stdout is not None
        assert one.stdout.readline() == b"ready\n"
        yield one
        one.kill()


def test_a_living_servers_socket_is_never_taken_and_a_killed_ones_is(
    path: Path, other_server: subprocess.Popen[bytes]
) -> None:
    inode = path.stat().st_ino
    with pytest.raises(ConfigError, match=f"process {other_server.pid}.* already listens"):
        bind(UnixBind(path))
    assert path.stat().st_ino == inode
    assert connects(path)
    other_server.kill()
    other_server.wait()
    assert path.exists()
    assert not connects(path)
    with bind(UnixBind(path)):
        assert connects(path)


def test_a_program_that_knows_no_lock_is_not_pushed_aside_either(path: Path) -> None:
    path.parent.mkdir(0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stranger:
        stranger.bind(os.fspath(path))
        stranger.listen()
        with pytest.raises(ConfigError, match="already listens"):
            bind(UnixBind(path))
        assert connects(path)


def test_a_server_too_busy_to_accept_is_taken_for_alive(path: Path) -> None:
    path.parent.mkdir(0o700)
    clients = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(3)]
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stranger:
        stranger.bind(os.fspath(path))
        stranger.listen(0)
        for client in clients:
            client.setblocking(False)
            client.connect_ex(os.fspath(path))  # fills the queue that nobody empties
        with pytest.raises(ConfigError, match="does not answer"):
            bind(UnixBind(path))
        assert path.exists()
    for client in clients:
        client.close()


def test_a_file_that_is_no_socket_is_left_alone(path: Path) -> None:
    path.parent.mkdir(0o700)
    path.write_text("precious")
    with pytest.raises(ConfigError, match="is no socket"):
        bind(UnixBind(path))
    assert path.read_text() == "precious"


def test_eight_servers_at_once_and_one_of_them_has_it(path: Path) -> None:
    source = textwrap.dedent(f"""
        import sys, time
        from pathlib import Path
        from crush_trio.protocol.errors import ConfigError
        from crush_trio.server.edge.sockets import UnixBind, bind
        sys.stdin.readline()
        try:
            kept = bind(UnixBind(Path({str(path)!r})))
        except ConfigError:
            print("refused", flush=True)
        else:
            print("bound", flush=True)
            sys.stdin.readline()
    """)
    run = [sys.executable, "-c", source]
    pipe = subprocess.PIPE
    many = [subprocess.Popen(run, cwd=ROOT, text=True, stdin=pipe, stdout=pipe) for _ in range(8)]
    try:
        for one in many:
            assert one.stdin is not None
            one.stdin.write("go\n")
            one.stdin.flush()
        said = [one.stdout.readline().strip() for one in many if one.stdout is not None]
        assert sorted(said) == ["bound", *["refused"] * 7]
        assert connects(path)
    finally:
        for one in many:
            one.kill()
            one.communicate()


def test_retiring_unlinks_at_once_and_closing_lets_the_next_one_in(path: Path) -> None:
    bound = bind(UnixBind(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as early:
        early.connect(os.fspath(path))
        bound.retire()
        assert not path.exists()
        with pytest.raises(ConfigError, match="already listens"):
            bind(UnixBind(path))  # it is still shutting down
        bound.retire()
        bound.close()
        bound.close()
    with bind(UnixBind(path)):
        assert connects(path)
    assert not path.exists()


def test_somebody_elses_socket_at_our_path_is_not_unlinked(path: Path) -> None:
    with bind(UnixBind(path)):
        path.unlink()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stranger:
            stranger.bind(os.fspath(path))
    assert path.exists()


# --- TCP -----------------------------------------------------------------------------------


def port_of(bound: BoundSocket) -> int:
    return int(bound.url.rpartition(":")[2])


@pytest.mark.parametrize(
    ("host", "prefix", "names"),
    [
        ("127.0.0.1", "tcp://127.0.0.1:", {"127.0.0.1"}),
        ("localhost", "tcp://127.0.0.1:", {"localhost", "127.0.0.1"}),
        ("LocalHost", "tcp://127.0.0.1:", {"localhost", "127.0.0.1"}),
        ("::1", "tcp://[::1]:", {"::1"}),
    ],
)
async def test_port_0_gives_a_real_port_that_answers(
    host: str, prefix: str, names: set[str]
) -> None:
    with bind(TcpBind(host, 0)) as bound:
        assert bound.url.startswith(prefix)
        assert port_of(bound) > 0
        assert bound.names == {(name, port_of(bound)) for name in names}
        address = bound.url.removeprefix("tcp://").rpartition(":")[0].strip("[]")
        async with (
            await trio.open_tcp_stream(address, port_of(bound)),
            await bound.listener.accept() as accepted,
        ):
            assert accepted.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_taken_port_is_one_sentence() -> None:
    in_words = pytest.raises(ConfigError, match=r"tcp://127.0.0.1:\d+ is in use by another")
    with bind(TcpBind("127.0.0.1", 0)) as bound, in_words:
        bind(TcpBind("127.0.0.1", port_of(bound)))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7"])
def test_an_address_others_can_reach_needs_a_word(host: str) -> None:
    with pytest.raises(ConfigError, match="--insecure-plaintext"):
        bind(TcpBind(host, 0))


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_with_that_word_it_is_bound(host: str) -> None:
    with bind(TcpBind(host, 0), insecure_plaintext=True) as bound:
        assert port_of(bound) > 0


def test_a_name_that_leads_to_the_network_needs_the_word_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.1.2.3", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(ConfigError, match="tcp://devbox:0 can be reached by others"):
        bind(TcpBind("devbox", 0))


def test_an_unknown_name_and_a_foreign_address_are_one_sentence_each() -> None:
    with pytest.raises(ConfigError, match="no address of a machine"):
        bind(TcpBind("no.such.host.invalid", 0))
    with pytest.raises(ConfigError, match="no address of this machine"):
        bind(TcpBind("192.0.2.7", 0), insecure_plaintext=True)
