"""``crush-trio`` processes without the time of their imports: a `Popen` that forks.

Most of what a test's server or command costs is importing. Here one process per test worker has
imported all of it and forks when asked; what comes of that is a child of the test's own process
(``CLONE_PARENT``), with the arguments, environment, directory and streams it would have got from
an exec, and it begins in `crush_trio.cli.main.main` as an installed command does. Signals, exit
codes and kills are therefore those of any child.

What only an exec shows (``/proc/<pid>/cmdline``, interpreter options, import times) is not there;
tests of that use `subprocess.Popen`. So does this class by itself for whatever is not
``crush_trio``, for an environment that the interpreter itself would read differently, and where
there is no ``clone``.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import inspect
import io
import json
import os
import platform
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

_COMMAND = [sys.executable, "-m", "crush_trio"]
_CLONE = {"x86_64": 56, "aarch64": 220}.get(platform.machine())
_CLONE_PARENT = 0x8000
_REQUEST_BYTES = 1 << 17
"""A longer request (arguments and environment) is left to an exec."""
_READ_AT_START = ("PYTHON", "LANG", "LC_")
"""Beginnings of variables that act before a program's first line."""
_LINKER = "LD_"
"""… and of those that change what is loaded, which is left to an exec."""

_KEPT = ("PATH", "CRUSH_TRIO_TEST_RUN")
"""Variables of a test run that a forked process shows in ``/proc``: the mark finds what is left."""

_parents: dict[str, tuple[int, socket.socket, subprocess.Popen[bytes]]] = {}
"""By those variables: who asked for it first, the way to it, and the process that forks."""


class Popen(subprocess.Popen[Any]):
    """As `subprocess.Popen`; ``crush-trio`` is forked, see the module."""

    def _execute_child(self, *given: Any) -> None:
        execute = subprocess.Popen._execute_child  # type: ignore[attr-defined]  # private
        asked = inspect.signature(execute).bind(self, *given).arguments
        pid = _fork(asked)
        if pid is None:
            execute(self, *given)
            return
        self._child_created = True
        self.pid = pid
        self._close_pipe_fds(  # type: ignore[attr-defined]  # private
            *(asked[name] for name in _PIPES)
        )


def run(
    args: list[str],
    *,
    input: Any = None,  # noqa: A002  # its name in the standard library
    timeout: float,
    check: bool = False,
    **more: Any,
) -> subprocess.CompletedProcess[Any]:
    """As `subprocess.run` with ``capture_output`` or streams of one's own."""
    if more.pop("capture_output", False):
        more["stdout"] = more["stderr"] = subprocess.PIPE
    if input is not None:
        more["stdin"] = subprocess.PIPE
    with Popen(args, **more) as process:
        try:
            out, err = process.communicate(input, timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(args, process.returncode, out, err)
    if check:
        done.check_returncode()
    return done


_PIPES = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
_PLAIN = {
    "executable": None,
    "preexec_fn": None,
    "pass_fds": (),
    "shell": False,
    "restore_signals": True,
    "gid": None,
    "gids": None,
    "uid": None,
    "umask": -1,
    "process_group": -1,
}


def _fork(asked: dict[str, Any]) -> int | None:
    """The pid of a forked ``crush-trio``; ``None`` if this has to be an exec."""
    args = asked["args"]
    if isinstance(args, str | bytes | os.PathLike) or _CLONE is None:
        return None
    words = [os.fsdecode(word) for word in args]
    plain = all(asked.get(name, value) == value for name, value in _PLAIN.items())
    if words[:3] != _COMMAND or not plain:
        return None
    env = {os.fsdecode(k): os.fsdecode(v) for k, v in (asked["env"] or os.environ).items()}
    if any(name.startswith(_LINKER) for name in env):
        return None
    cwd = os.getcwd() if asked["cwd"] is None else os.fsdecode(asked["cwd"])
    request = json.dumps([words[3:], env, cwd, bool(asked["start_new_session"])]).encode()
    if len(request) > _REQUEST_BYTES:
        return None
    wanted = ((asked["p2cread"], 0), (asked["c2pwrite"], 1), (asked["errwrite"], 2))
    way = _way_to_parent(env)
    socket.send_fds(way, [request], [own if fd == -1 else fd for fd, own in wanted])
    answer = json.loads(way.recv(_REQUEST_BYTES))
    if isinstance(answer, str):  # the directory is not there, as an exec would say
        raise FileNotFoundError(2, answer, cwd)
    return int(answer)


def _way_to_parent(env: dict[str, str]) -> socket.socket:
    at_start = {name: text for name, text in env.items() if name.startswith(_READ_AT_START)}
    key = json.dumps(at_start, sort_keys=True)
    owner, way, _ = _parents.get(key, (0, None, None))
    if owner != os.getpid() or way is None:
        way, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            env={name: os.environ[name] for name in _KEPT if name in os.environ} | at_start,
            cwd=Path(__file__).parent.parent,
        )
        theirs.close()
        _parents[key] = (os.getpid(), way, parent)
    return way


def end() -> None:
    """End the processes that fork; further requests make new ones."""
    for key, (owner, way, parent) in tuple(_parents.items()):
        if owner == os.getpid():
            del _parents[key]
            way.close()
            parent.wait()


# --- the process that forks ---------------------------------------------------------------


def main() -> None:
    """Serve the requests that come by the socket whose descriptor is the first argument."""
    sys.path[0] = str(Path(__file__).parent.parent)
    import crush_trio.cli.group
    import crush_trio.cli.main
    import crush_trio.cli.run_flow
    import crush_trio.cli.serve
    import crush_trio.client.api
    import crush_trio.client.follow
    import crush_trio.server.serve  # noqa: F401  # all of them: what takes the time of a start

    way = socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(way.fileno(), False)
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's; who started this ends it
    while True:
        request, streams, _, _ = socket.recv_fds(way, _REQUEST_BYTES, 3)
        if not request:
            way.close()
            return
        words, env, cwd, alone = json.loads(request)
        if not os.path.isdir(cwd):
            way.send(json.dumps("No such file or directory").encode())
        else:
            # The GIL stays held, as in `os.fork`; the child is the child of our own parent.
            pid = ctypes.PyDLL(None).syscall(_CLONE, _CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0)
            if pid == 0:
                ctypes.pythonapi.PyOS_AfterFork_Child()
                way.close()
                _become_command(words, env, cwd, streams, alone=alone)
            way.send(json.dumps(pid).encode())
        for stream in streams:
            os.close(stream)


def _become_command(
    words: list[str], env: dict[str, str], cwd: str, streams: list[int], *, alone: bool
) -> NoReturn:
    """In the child: what an exec would have given, then the command."""
    code = 70
    try:
        if alone:
            os.setsid()
        os.chdir(cwd)
        for stream, number in zip(streams, range(3), strict=True):
            os.dup2(stream, number)
            os.close(stream)
        for name in os.environ.keys() - env.keys():
            del os.environ[name]
        os.environ.update(env)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
            setattr(sys, name, _stream(name, number, mode))
            setattr(sys, f"__{name}__", getattr(sys, name))
        random.seed()
        gc.unfreeze()
        sys.argv = ["crush-trio", *words]
        from crush_trio.cli.main import main as command

        code = _run(command)
    finally:
        os._exit(code)


def _stream(name: str, number: int, mode: str) -> io.TextIOWrapper:
    """A standard stream as the interpreter makes them at its start."""
    like = getattr(sys, name)
    raw = open(number, f"{mode}b", closefd=False)  # noqa: SIM115  # open until the process ends
    return io.TextIOWrapper(
        raw,
        encoding=like.encoding,
        errors=like.errors,
        line_buffering=name == "stderr" or os.isatty(number),
    )


def _run(command: Any) -> int:
    """The exit code of the command, as the interpreter finds it at its own end."""
    try:
        command()
    except SystemExit as end:
        if end.code is not None and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)  # noqa: T201  # what the interpreter does
            code = 1
        else:
            code = end.code or 0
    except BaseException:  # what the interpreter would print
        sys.excepthook(*sys.exc_info())
        code = 1
    else:
        code = 0
    import threading

    threading._shutdown()  # type: ignore[attr-defined]  # the interpreter waits for threads
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            code = code or 120  # as the interpreter
    return code & 0xFF


if __name__ == "__main__":
    main()
