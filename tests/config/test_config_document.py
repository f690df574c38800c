"""Reading one file: whatever lies there, the answer is an object or one sentence (G14)."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from crush_trio import limits
from crush_trio.config.document import contents, read_document
from crush_trio.protocol.errors import ConfigError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "crush.json"


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_document(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert text.endswith(".")
    assert "\n" not in text
    return text.removeprefix(f"{path}: ")


def test_a_missing_file_and_a_missing_directory_are_no_configuration(path: Path) -> None:
    assert read_document(path) is None
    path.write_text("{}")
    assert read_document(path / "below") is None


def test_a_byte_order_mark_is_nothing(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbf" + '{"$schema": "ü"}'.encode())
    assert read_document(path) == {"$schema": "ü"}


def test_a_file_of_the_largest_size_is_read_and_one_byte_more_is_not(path: Path) -> None:
    """G14: no file of a repository can make us read without bound."""
    path.write_bytes(b"{}" + b" " * (limits.CONFIG_FILE_BYTES - 2))
    assert read_document(path) == {}
    with path.open("ab") as file:
        file.write(b" ")
    assert refusal(path) == "larger than 1048576 bytes."


def test_a_file_that_never_ends_is_read_no_further_than_the_bound(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse
    assert len(contents(path)) == limits.CONFIG_FILE_BYTES + 1
    assert refusal(path) == "larger than 1048576 bytes."


def test_a_fifo_is_refused_without_waiting_for_a_writer(path: Path) -> None:
    """G14: the test's own time limit would end a wait."""
    os.mkfifo(path)
    assert refusal(path) == "expected a regular file, not a FIFO."


def test_a_file_that_becomes_a_fifo_after_the_look_is_refused_without_waiting(path: Path) -> None:
    """G14: only the second half of reading, so that no function of the system is replaced."""
    os.mkfifo(path)
    with pytest.raises(ConfigError, match="expected a regular file, not a FIFO"):
        contents(path)


def test_directories_sockets_and_devices_are_named_for_what_they_are(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.mkdir()
    assert refusal(path) == "expected a regular file, not a directory."
    path.rmdir()
    path.symlink_to("/dev/zero")
    assert refusal(path) == "expected a regular file, not a device."
    path.unlink()
    monkeypatch.chdir(tmp_path)  # the name of a socket has little room
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("crush.json")
        assert refusal(path) == "expected a regular file, not a socket."


def test_a_symlink_to_itself_is_one_sentence(path: Path) -> None:
    path.symlink_to(path.name)
    assert refusal(path).startswith("cannot be read: ")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_one_sentence(path: Path) -> None:
    path.write_text("{}")
    path.chmod(0)
    assert refusal(path) == "cannot be read: Permission denied."


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (b"", "not valid JSON at line 1, column 1: Expecting value."),
        (b'{\n  "a": 1,\n  }', "not valid JSON at line 3, column 3: "),
        (b"{} {}", "not valid JSON at line 1, column 4: Extra data."),
        (b'{"a": "\x1b"}', "not valid JSON at line 1, column 8: Invalid control character at."),
        (b'{\n"a": "\xff"}', "not UTF-8 text (line 2)."),
        ("{}".encode("utf-16"), "not UTF-8 text (line 1)."),
        (b"[]", "$: expected an object, not an array."),
        (b"null", "$: expected an object, not null."),
        (b'{"a": NaN}', "not valid JSON: a number is out of range."),
        (b'{"a": 1e999}', "not valid JSON: a number is out of range."),
        (b'{"a": 9223372036854775808}', "not valid JSON: a number is out of range."),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON: a number is out of range."),
        (b'{"a": "\\ud800"}', "a string holds half of a surrogate pair."),
        (b'{"\\udfff": 1}', "a string holds half of a surrogate pair."),
    ],
)
def test_what_is_not_json_text_gets_one_sentence_with_its_place(
    path: Path, raw: bytes, sentence: str
) -> None:
    """G14."""
    path.write_bytes(raw)
    assert refusal(path).startswith(sentence)


def test_a_key_that_stands_twice_is_refused_because_readers_disagree_which_counts(
    path: Path,
) -> None:
    path.write_text('{"options": {"debug": true, "debug": false}}')
    assert refusal(path) == 'the key "debug" stands twice in one object.'
    path.write_text('{"\\u001b[2J": 1, "\\u001b[2J": 1}')
    assert refusal(path) == 'the key "\\u001b[2J" stands twice in one object.'


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_nesting_is_bounded_far_before_the_interpreters_own_limit(path: Path, opening: str) -> None:
    """G14: a megabyte of brackets is one sentence, not a stack overflow."""
    closing = {"[": "]", '{"a":': "}"}[opening]

    def nested(levels: int) -> str:
        return '{"x":' + opening * levels + "0" + closing * levels + "}"

    path.write_text(nested(limits.CONFIG_DEPTH - 2))
    assert read_document(path) is not None
    for levels in (limits.CONFIG_DEPTH - 1, limits.CONFIG_DEPTH, 800, 100_000):
        path.write_text(nested(levels))
        assert refusal(path) == "nested deeper than 64 levels."
