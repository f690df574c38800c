"""Runs a ``$(command)`` of the configuration: bounded in time and output, killed as a group."""

from __future__ import annotations

import atexit
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from crush_trio import limits
from crush_trio.protocol.errors import ConfigError

_SHELL = "/bin/sh"
_CHUNK = 64 * 1024
_MOMENT_S = 0.001  # a shell that has closed its pipes ends at once; bounded by CONFIG_COMMAND_S

_running: set[subprocess.Popen[bytes]] = set()


def _go_on() -> None:
    """Nobody gives up."""


def run_command(
    command: str, environ: Mapping[str, str], *, check: Callable[[], None] = _go_on
) -> str:
    """What ``command`` writes to stdout, without the newlines at its end. Blocks: use a thread.

    It runs with ``/bin/sh`` and ``environ``, in the home directory: not in the workspace, where a
    repository's own files could change what a command of the user's does. Its stdin is empty.
    When the shell has ended, or its time is up, its whole process group is killed. Neither the
    command nor its output is ever logged or quoted.

    ``check`` is called every `limits.CONFIG_COMMAND_LOOK_S` and raises when nobody waits any more:
    then the command is killed, too.

    Raises:
        ConfigError: It cannot be started, ends with another code than 0, writes more than
            `limits.CONFIG_COMMAND_BYTES` or no text, or takes longer than
            `limits.CONFIG_COMMAND_S`. The message does not name the place of the value.
    """
    try:
        process = subprocess.Popen(
            [_SHELL, "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={name: value for name, value in environ.items() if _can_be_set(name, value)},
            cwd=_home(environ),
            start_new_session=True,
        )
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the command
        raise ConfigError("a $(command) cannot be started.") from exc
    _running.add(process)
    try:
        with process:
            try:
                output, said, overflown = _read(process, check)
            finally:
                _kill(process)
    finally:
        _running.discard(process)
    if overflown:
        raise ConfigError(f"a $(command) wrote more than {limits.CONFIG_COMMAND_BYTES} bytes.")
    if process.returncode != 0:
        raise ConfigError(f"a $(command) {_ended(process.returncode)}{_cleaned(said)}.")
    return _text(output)


def _read(process: subprocess.Popen[bytes], check: Callable[[], None]) -> tuple[bytes, bytes, bool]:
    """Stdout, the beginning of stderr, and whether there was too much of the first.

    Ends when the shell does, also if something it has started keeps its pipes open.
    """
    deadline = time.monotonic() + limits.CONFIG_COMMAND_S
    assert process.stdout is not None
    assert process.stderr is not None
    found: dict[int, bytearray] = {}
    with selectors.DefaultSelector() as selector:
        for pipe in (process.stdout, process.stderr):
            os.set_blocking(pipe.fileno(), False)
            selector.register(pipe, selectors.EVENT_READ)
            found[pipe.fileno()] = bytearray()
        output, said = found.values()
        has_ended = False
        while selector.get_map():
            check()
            if time.monotonic() >= deadline:
                raise _too_slow()
            ready = selector.select(0 if has_ended else limits.CONFIG_COMMAND_LOOK_S)
            if has_ended and not ready:
                break
            for key, _ in ready:
                piece = os.read(key.fd, _CHUNK)
                kept = found[key.fd]
                if not piece:
                    selector.unregister(key.fileobj)
                elif kept is output or len(kept) < _CHUNK:
                    kept += piece
            if len(output) > limits.CONFIG_COMMAND_BYTES:
                return b"", b"", True
            if not has_ended and _has_ended(process):
                has_ended = True
                _kill(process)  # what it left behind can write no more
    while not _has_ended(process):
        check()
        if time.monotonic() >= deadline:
            raise _too_slow()
        time.sleep(_MOMENT_S)
    return bytes(output), bytes(said), False


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether the shell has ended; it stays to be waited for, so that its number stays taken."""
    if hasattr(os, "waitid"):
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, process.pid, options) is not None
    return process.poll() is not None


def _too_slow() -> ConfigError:
    return ConfigError(f"a $(command) took longer than {limits.CONFIG_COMMAND_S:g} s.")


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End what is left of the group, before the shell is waited for and its number is free."""
    with suppress(OSError):  # nobody of the group is left
        os.killpg(process.pid, signal.SIGKILL)


@atexit.register
def _kill_all() -> None:
    """A process that ends while its thread waits for a command does not leave it behind."""
    for process in tuple(_running):
        _kill(process)


def _home(environ: Mapping[str, str]) -> str:
    home = environ.get("HOME", "")
    return home if os.path.isabs(home) and os.path.isdir(home) else "/"


def _can_be_set(name: str, value: str) -> bool:
    return bool(name) and "=" not in name and "\0" not in name + value


def _ended(code: int) -> str:
    return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"


def _cleaned(said: bytes) -> str:
    """The last line of stderr as the end of a sentence, safe for a terminal."""
    lines = said.decode("utf-8", "replace").strip().splitlines()
    if not lines:
        return ""
    line = "".join(char if char.isprintable() else " " for char in lines[-1]).strip()
    if len(line) > limits.CONFIG_COMMAND_ERROR_CHARS:
        line = line[: limits.CONFIG_COMMAND_ERROR_CHARS] + "…"
    return ": " + line.rstrip(".")


def _text(output: bytes) -> str:
    try:
        text = output.decode().rstrip("\n")
    except UnicodeDecodeError as exc:
        raise ConfigError("a $(command) wrote something that is not UTF-8 text.") from exc
    if "\0" in text:
        raise ConfigError("a $(command) wrote a NUL character.")
    return text
