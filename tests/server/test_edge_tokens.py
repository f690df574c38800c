"""Tokens: made whole and private, read strictly, compared without telling, failures delayed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from crush_trio.limits import AUTH_DELAY_MAX_S, AUTH_FORGET_S, AUTH_PEERS
from crush_trio.protocol.errors import ConfigError
from crush_trio.protocol.tokens import read_token_file
from crush_trio.server.edge.tokens import FailureDelays, load_tokens, make_token_file

UID = os.getuid()
ONE, TWO = "a" * 20, "b" * 20


def token_file(directory: Path, text: str, mode: int = 0o600) -> Path:
    path = directory / "token"
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
def test_a_made_token_is_random_private_and_made_once(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        tokens = load_tokens(tmp_path, {}, UID)
    finally:
        os.umask(before)
    path = tmp_path / "token"
    made = path.read_text()
    assert len(made.strip()) == 43  # 256 bits in base64url
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert tokens.principal_of(made.strip().encode()) == "token"
    load_tokens(tmp_path, {}, UID)
    assert path.read_text() == made
    assert os.listdir(tmp_path) == ["token"]
    other = tmp_path / "other"
    make_token_file(other)
    assert other.read_text() != made


def test_names_are_principals_and_a_bare_token_has_one(tmp_path: Path) -> None:
    path = token_file(tmp_path, f"# people\n\nalice:{ONE}\n  {TWO}  \n")
    assert read_token_file(path, UID) == {"alice": ONE, "token": TWO}
    tokens = load_tokens(tmp_path, {}, UID)
    assert tokens.principal_of(ONE.encode()) == "alice"
    assert tokens.principal_of(TWO.encode()) == "token"
    for wrong in (b"", ONE[:-1].encode(), f"alice:{ONE}".encode(), b"\xff" * 20):
        assert tokens.principal_of(wrong) is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o610, 0o601])
def test_a_file_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    path = token_file(tmp_path, ONE, mode)
    with pytest.raises(ConfigError, match=f"chmod 600 {path}"):
        load_tokens(tmp_path, {}, UID)


def test_somebody_elses_file_is_refused(tmp_path: Path) -> None:
    path = token_file(tmp_path, ONE)
    if UID == 0:
        os.chown(path, 4711, -1)
        with pytest.raises(ConfigError, match="belongs to user 4711"):
            read_token_file(path, UID)
    else:
        with pytest.raises(ConfigError, match=f"belongs to user {UID}"):
            read_token_file(path, UID + 1)


def test_a_named_pipe_in_its_place_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    """G12, G14."""
    path = tmp_path / "token"
    os.mkfifo(path, 0o600)
    with pytest.raises(ConfigError, match="not a regular file"):
        read_token_file(path, UID)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    """G14."""
    path = token_file(tmp_path, "")
    path.write_bytes(b"\xff\xfe" + ONE.encode())
    with pytest.raises(ConfigError, match="is not text"):
        read_token_file(path, UID)


@pytest.mark.parametrize(
    "text",
    [
        "short",
        "alice:short",
        f"local:{ONE}",
        f"alice:{ONE}\nalice:{TWO}",
        f"{ONE}\n{TWO}",
        f"al ice:{ONE}",
        f":{ONE}",
        f"alice:{ONE} trailing",
        f"alice:{ONE}é",
        "",
        "# nothing\n",
    ],
)
def test_a_line_that_says_nothing_is_refused_without_showing_a_token(
    tmp_path: Path, text: str
) -> None:
    path = token_file(tmp_path, text)
    with pytest.raises(ConfigError, match=str(path)) as refused:
        read_token_file(path, UID)
    assert ONE not in str(refused.value)
    assert TWO not in str(refused.value)


def test_the_environment_adds_its_token_and_then_no_file_is_made(tmp_path: Path) -> None:
    tokens = load_tokens(tmp_path, {"CRUSH_TRIO_TOKEN": "with:colon:" + ONE}, UID)
    assert tokens.principal_of(f"with:colon:{ONE}".encode()) == "token"
    assert os.listdir(tmp_path) == []
    token_file(tmp_path, f"alice:{TWO}")
    both = load_tokens(tmp_path, {"CRUSH_TRIO_TOKEN": ONE}, UID)
    assert both.principal_of(ONE.encode()) == "token"
    assert both.principal_of(TWO.encode()) == "alice"
    with pytest.raises(ConfigError, match="CRUSH_TRIO_TOKEN"):
        load_tokens(tmp_path, {"CRUSH_TRIO_TOKEN": "short"}, UID)


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_tokens(tmp_path, {}, UID, tmp_path / "mine")
    assert os.listdir(tmp_path) == []


def test_a_directory_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be made"):
        make_token_file(tmp_path / "missing" / "token")


def test_delays_double_to_their_bound_per_peer_and_are_forgotten() -> None:
    delays = FailureDelays()
    assert [delays.note("a", 0.0) for _ in range(6)] == [0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    assert delays.note("b", 0.0) == 0.2
    assert delays.note("a", AUTH_FORGET_S) == AUTH_DELAY_MAX_S
    assert delays.note("a", 2 * AUTH_FORGET_S + 1) == 0.2


def test_remembered_peers_are_bounded_and_the_longest_silent_goes() -> None:
    delays = FailureDelays()
    for number in range(AUTH_PEERS):
        delays.note(f"peer {number}", 0.0)
    delays.note("peer 0", 1.0)
    delays.note("new", 2.0)  # pushes out peer 1
    assert delays.note("peer 0", 2.0) == 0.8
    assert delays.note("peer 1", 2.0) == 0.2
