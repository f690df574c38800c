"""Whose listening sockets are: the kernel's tables and lsof's words, read as they are."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from crush_trio.models.local.owners import (
    Listener,
    Place,
    from_lsof,
    from_tables,
    listeners,
    place_of,
)

_HEAD = (
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  t inode\n"
)


def _row(address: str, state: str, uid: int) -> str:
    return (
        f"   0: {address} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000 {uid} 0 1\n"
    )


@pytest.mark.skipif(sys.byteorder != "little", reason="the tables below are of such a machine")
def test_the_kernels_tables_are_read(tmp_path: Path) -> None:
    tcp = [
        _row("0100007F:2CAA", "0A", 1000),
        _row("00000000:1F90", "0A", 0),
        _row("0100007F:2CAA", "01", 1234),  # a connection, not a listener
        "garbage\n",
        _row("0100:2CAA", "0A", 1),
        _row("0100007F:XYZ", "0A", 1),
    ]
    tcp6 = [
        _row("00000000000000000000000000000000:04D2", "0A", 1001),
        _row("00000000000000000000000001000000:1F40", "0A", 1002),
        _row("0000000000000000FFFF00000100007F:1F41", "0A", 1003),
    ]
    (tmp_path / "tcp").write_text(_HEAD + "".join(tcp))
    (tmp_path / "tcp6").write_text(_HEAD + "".join(tcp6))
    assert from_tables(tmp_path) == (
        Listener("127.0.0.1", 11434, 1000),
        Listener("0.0.0.0", 8080, 0),
        Listener("::", 1234, 1001),
        Listener("::1", 8000, 1002),
        Listener("::ffff:127.0.0.1", 8001, 1003),
    )


def test_a_machine_without_ipv6_or_without_tables_has_what_it_has(tmp_path: Path) -> None:
    assert from_tables(tmp_path) == ()
    (tmp_path / "tcp").write_text(_HEAD + _row("00000000:1F90", "0A", 7))
    assert from_tables(tmp_path) == (Listener("0.0.0.0", 8080, 7),)


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_a_real_socket_of_ours_is_seen_with_our_uid(family: int, host: str) -> None:
    with socket.socket(family) as real:
        real.bind((host, 0))
        real.listen()
        port = real.getsockname()[1]
        assert place_of(port, listeners()) == Place(host, port)
    assert place_of(port, listeners()) is None


def test_what_lsof_prints_is_read() -> None:
    text = (
        "p501\nu501\nf3\ntIPv4\nn127.0.0.1:11434\nf4\ntIPv6\nn[::1]:11434\n"
        "p77\nu0\nf9\ntIPv6\nn*:8080\nf10\ntIPv4\nn*:1234\n"
        "p78\nf1\ntIPv4\nn*:8000\nnbroken\n"
    )
    assert from_lsof(text) == (
        Listener("127.0.0.1", 11434, 501),
        Listener("::1", 11434, 501),
        Listener("::", 8080, 0),
        Listener("0.0.0.0", 1234, 0),
    )


@pytest.mark.parametrize(
    ("sockets", "expected"),
    [
        ([], None),
        ([("10.0.0.1", 5)], None),
        ([("127.0.0.1", 5)], Place("127.0.0.1", 80)),
        ([("0.0.0.0", 0)], Place("127.0.0.1", 80)),
        ([("127.0.0.1", 6)], Place("127.0.0.1", 80, 6)),
        ([("127.0.0.1", 5), ("0.0.0.0", 6)], Place("127.0.0.1", 80, 6)),
        ([("127.0.0.1", 5), ("::", 6)], Place("127.0.0.1", 80, 6)),
        ([("127.0.0.1", 5), ("::1", 6)], Place("127.0.0.1", 80)),
        ([("::ffff:127.0.0.1", 5)], Place("127.0.0.1", 80)),
        ([("::", 5)], Place("::1", 80)),
        ([("::1", 6)], Place("::1", 80, 6)),
        ([("::1", 5), ("::", 6)], Place("::1", 80, 6)),
    ],
)
def test_each_socket_that_might_get_the_connection_must_be_ours_or_roots(
    sockets: list[tuple[str, int]], expected: Place | None
) -> None:
    found = [Listener(address, 80, uid) for address, uid in sockets]
    assert place_of(80, [*found, Listener("127.0.0.1", 81, 6)], uid=5) == expected


def test_an_address_is_written_as_a_url_has_it() -> None:
    assert (Place("127.0.0.1", 80).address, Place("::1", 80).address) == (
        "127.0.0.1:80",
        "[::1]:80",
    )
