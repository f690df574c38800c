"""Reading one configuration file: bounded, never blocking on odd files, strict JSON."""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path
from typing import Any

from crush_trio import limits
from crush_trio.config.shapes import json_name, quoted
from crush_trio.protocol.errors import ConfigError

_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1
_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def read_document(path: Path, *, private: bool = False) -> dict[str, Any] | None:
    """The JSON object in ``path``, or ``None`` if there is no such file.

    Args:
        private: It must be ours, and nobody else may be able to write it.

    Raises:
        ConfigError: Not a regular readable file, over `limits.CONFIG_FILE_BYTES`, not UTF-8, not
            JSON (with line and column), a key twice in one object, nested deeper than
            `limits.CONFIG_DEPTH`, or not an object.
    """
    raw = _read(path, private=private)
    if raw is None:
        return None
    try:
        # Some editors write a byte order mark; it says nothing that UTF-8 does not.
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = raw.count(b"\n", 0, exc.start) + 1
        raise ConfigError(f"{path}: not UTF-8 text (line {line}).") from exc
    value = _parse(text, path)
    if type(value) is not dict:
        raise ConfigError(f"{path}: $: expected an object, not {json_name(value)}.")
    check_value(value, path)
    return value


def _read(path: Path, *, private: bool) -> bytes | None:
    try:
        # Looked at before it is opened: opening a device may already do something.
        _must_be_regular(os.stat(path).st_mode, path)
        raw = contents(path, private=private)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read: {exc.strerror}.") from exc
    if len(raw) > limits.CONFIG_FILE_BYTES:
        raise ConfigError(f"{path}: larger than {limits.CONFIG_FILE_BYTES} bytes.")
    return raw


def contents(path: Path, *, private: bool = False) -> bytes:
    """At most one byte more than `limits.CONFIG_FILE_BYTES`, whatever ``path`` has become.

    Never waits: not for the other end of a FIFO that took the file's place after a first look.

    Raises:
        ConfigError: Not a regular file, or not ``private`` although it must be.
        OSError: It cannot be opened or read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        _must_be_regular(status.st_mode, path)
        if private:
            _must_be_private(status, path)
        return file.read(limits.CONFIG_FILE_BYTES + 1)


def _must_be_regular(mode: int, path: Path) -> None:
    if not stat.S_ISREG(mode):
        kind = next((words for test, words in _KINDS if test(mode)), "something else")
        raise ConfigError(f"{path}: expected a regular file, not {kind}.")


def _must_be_private(status: os.stat_result, path: Path) -> None:
    if status.st_uid != os.geteuid():
        raise ConfigError(f"{path}: belongs to another user; remove it.")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(f"{path}: others may write it; look at it, then `chmod 600` it.")


class _DuplicateKeyError(Exception):
    """A key stands twice in one object; its text is the key."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _DuplicateKeyError(key)
            seen.add(key)
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _parse(text: str, path: Path) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
    except json.JSONDecodeError as exc:
        raise ConfigError(
            f"{path}: not valid JSON at line {exc.lineno}, column {exc.colno}: {exc.msg}."
        ) from exc
    except _DuplicateKeyError as exc:
        raise ConfigError(
            f"{path}: the key {quoted(str(exc))} stands twice in one object."
        ) from exc
    except RecursionError as exc:
        raise _too_deep(path) from exc
    except ValueError as exc:  # NaN and its like, or an integer of thousands of digits
        raise ConfigError(f"{path}: not valid JSON: a number is out of range.") from exc


def _too_deep(path: Path) -> ConfigError:
    return ConfigError(f"{path}: nested deeper than {limits.CONFIG_DEPTH} levels.")


def check_value(value: Any, path: Path) -> None:
    """Refuse what later steps (recursion, writing JSON again) could not bear.

    Raises:
        ConfigError: As `read_document` for a file that holds ``value``.
    """
    level: list[Any] = [value]
    for _ in range(limits.CONFIG_DEPTH):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                _must_be_text("".join(item), path)
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
            else:
                _must_be_writable(item, path)
        if not below:
            return
        level = below
    raise _too_deep(path)


def _must_be_writable(item: Any, path: Path) -> None:
    if isinstance(item, str):
        _must_be_text(item, path)
    elif (isinstance(item, float) and not math.isfinite(item)) or (
        isinstance(item, int) and not _INT_MIN <= item <= _INT_MAX
    ):
        raise ConfigError(f"{path}: not valid JSON: a number is out of range.")


def _must_be_text(text: str, path: Path) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise ConfigError(f"{path}: a string holds half of a surrogate pair.") from exc
