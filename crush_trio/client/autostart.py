"""Finding a running server that speaks our protocol, or starting one, by one client at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import attrs
import trio

from crush_trio.client.api import Api
from crush_trio.client.errors import CannotStart, Misconfigured, ServerRefused, Unreachable
from crush_trio.client.http import Http
from crush_trio.client.locate import Target
from crush_trio.client.shapes import JsonObject, text
from crush_trio.limits import (
    AUTOSTART_LOCK_S,
    AUTOSTART_PROBE_S,
    AUTOSTART_READY_S,
    AUTOSTART_TRIES,
    BACKOFF_FIRST_S,
    IDLE_EXIT_S,
    SERVER_OUTPUT_BYTES,
    STOP_WAIT_S,
)
from crush_trio.protocol.version import PROTOCOL

SERVER_LOG = "server.log"
"""The server's own log, inside its data directory."""

_OUTPUT = "server.out"  # stdout and stderr of an auto-started server: its first and last words

_START_LOCK = "start.lock"
_LOOK_AGAIN_S = 0.02  # neither a starting server nor a file lock can be waited for by event


class WrongVersion(Misconfigured):
    """The server speaks another major version of the protocol and must not be replaced now."""


@attrs.define
class _Child:
    """A server we have just started; kept until it answers or has failed."""

    process: subprocess.Popen[bytes]
    log: Path
    log_start: int

    def last_words(self) -> str:
        """The last non-empty line it wrote, which is its own error sentence."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(self.log_start, self.log.stat().st_size - 4096))
                lines = file.read().decode("utf-8", "replace").split("\n")
        except OSError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


# Popen complains when it is collected while its child lives; these are meant to outlive us.
_detached: list[subprocess.Popen[bytes]] = []


async def ensure_server(
    target: Target,
    http: Http,
    *,
    autostart: bool = True,
    notice: Callable[[str], None] | None = None,
) -> JsonObject:
    """The version of the server at ``target``, which is started or replaced if need be.

    Only the default server of a data directory is started (``target.data_dir``); one that was
    named is used or reported, never replaced by a local one.

    Args:
        target: From `locate`.
        http: Requests to ``target.endpoint``.
        autostart: Whether a missing server may be started.
        notice: Gets a sentence when something takes long.

    Raises:
        Unreachable: Nothing answers, and it may not be started.
        CannotStart: It was started in vain; the text ends with its own sentence.
        WrongVersion: It speaks another major version and is in use, or is not ours to replace.
    """
    data_dir = target.data_dir if autostart else None
    try:
        found = await _probe(http)
    except Unreachable:
        if data_dir is None:
            raise
        return await _start(http, data_dir, notice)
    if found.get("protocol") == PROTOCOL:
        return found
    if data_dir is None or not await _asked_to_leave(http):
        raise WrongVersion(_mismatch(found, target))
    await wait_gone(http)
    return await _start(http, data_dir, notice)


def _mismatch(found: JsonObject, target: Target) -> str:
    from crush_trio import __version__

    where = "" if target.data_dir is None else " (crush-trio stop)"
    return (
        f"the server at {target.endpoint.url} is version {text(found, 'version') or 'unknown'} "
        f"with protocol {found.get('protocol', 'unknown')}, this command is {__version__} with "
        f"protocol {PROTOCOL}: stop that server{where} when its work is done, then try again"
    )


async def _probe(http: Http) -> JsonObject:
    return await Api(http).version(timeout=AUTOSTART_READY_S)


async def _asked_to_leave(http: Http) -> bool:
    try:
        await Api(http).control("shutdown_if_idle")
    except ServerRefused:
        return False
    except Unreachable:
        return True  # it may go before its answer has arrived
    return True


async def wait_gone(http: Http, timeout: float = STOP_WAIT_S) -> bool:
    """Wait until nothing listens there any more; whether that came true within ``timeout`` s."""
    with trio.move_on_after(timeout):
        while True:
            http.close()  # a kept connection says nothing about the next one
            try:
                with contextlib.suppress(ServerRefused):  # still there, and saying so
                    await Api(http).version(timeout=AUTOSTART_PROBE_S)
            except Unreachable as exc:
                if exc.refused:
                    return True
            await trio.sleep(_LOOK_AGAIN_S)
    return False


async def _start(http: Http, data_dir: Path, notice: Callable[[str], None] | None) -> JsonObject:
    """Start a server, or find the one another client has started meanwhile."""
    try:
        os.makedirs(data_dir, mode=0o700, exist_ok=True)
    except OSError as exc:
        raise CannotStart(f"the data directory {data_dir} cannot be made: {exc.strerror}") from exc
    words = ""
    async with _single_flight(data_dir / _START_LOCK):
        for attempt in range(AUTOSTART_TRIES):
            await trio.sleep(BACKOFF_FIRST_S * attempt)  # one that is leaving needs a moment
            with contextlib.suppress(Unreachable):
                return await _probe(http)
            if notice is not None:
                notice("starting a server")
            child = _spawn(data_dir)
            found = await _ready(child, http)
            if found is not None:
                _detached.append(child.process)
                return found
            words = child.last_words() or f"it ended with status {child.process.returncode}"
    raise CannotStart(f"no server could be started for {data_dir}: {words}")


@contextlib.asynccontextmanager
async def _single_flight(path: Path) -> AsyncIterator[None]:
    """Hold the start lock, so that of many clients one starts a server and the others find it."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as exc:
        raise CannotStart(f"the lock {path} cannot be opened: {exc.strerror}") from exc
    try:
        with trio.move_on_after(AUTOSTART_LOCK_S) as patience:
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await trio.sleep(_LOOK_AGAIN_S)
        if patience.cancelled_caught:
            raise CannotStart(
                f"another command has been starting this server for {AUTOSTART_LOCK_S:g} s"
            )
        yield
    finally:
        os.close(fd)  # which unlocks


def _spawn(data_dir: Path) -> _Child:
    log = data_dir / _OUTPUT
    command = [sys.executable, "-P", "-m", "crush_trio", "serve", "--data-dir", str(data_dir)]
    try:
        if log.exists() and log.stat().st_size > SERVER_OUTPUT_BYTES:
            log.replace(log.with_suffix(".out.1"))
        fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise CannotStart(f"the log {log} cannot be written: {exc.strerror}") from exc
    try:
        begin = os.fstat(fd).st_size  # before it can have written anything
        process = subprocess.Popen(
            [*command, "--idle-exit", f"{IDLE_EXIT_S:g}"],
            stdin=subprocess.DEVNULL,
            stdout=fd,
            stderr=fd,
            cwd="/",  # a server must not keep a directory from being unmounted
            start_new_session=True,  # the terminal's Ctrl-C is not for it
        )
        return _Child(process, log, begin)
    finally:
        os.close(fd)


async def _ready(child: _Child, http: Http) -> JsonObject | None:
    """The version once the child answers; ``None`` if it ended or took too long (and was ended)."""
    try:
        with trio.move_on_after(AUTOSTART_READY_S):
            while child.process.poll() is None:
                with contextlib.suppress(Unreachable):
                    return await _probe(http)
                await trio.sleep(_LOOK_AGAIN_S)
            return None
    except BaseException:
        _detached.append(child.process)  # interrupted: it may still come up, and then serves
        raise
    child.process.kill()
    child.process.wait()
    return None
