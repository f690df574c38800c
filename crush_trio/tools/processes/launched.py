"""One command under its launcher: the pipes to it, what it reports, and how to end its tree."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import trio

from crush_trio.limits import (
    KILL_GRACE_S,
    KILLED_DIES_S,
    LAUNCHER_ANSWERS_S,
    LAUNCHER_DROP_S,
    LAUNCHER_GIVES_UP_S,
)
from crush_trio.protocol.runs import LeftProcess
from crush_trio.tools.processes import process_table
from crush_trio.tools.processes.cgroup import Cgroup, launcher_cgroup
from crush_trio.tools.sandbox.mechanism import CONFINE

LAUNCHER = Path(__file__).with_name("launcher.py")


class Launched:
    """A launcher, its command's shell, and whatever came of that.

    Owned by the `RunProcesses` that started it. ``stdout`` and ``stderr`` are read ends of pipes,
    non-blocking, ours until `hand_over_output`; the launcher holds copies, so a background process
    that goes on writing meets neither a closed pipe nor a full one.
    """

    def __init__(
        self,
        process: trio.Process,
        control: int,
        status: int,
        stdout: int,
        stderr: int,
        cgroup: Cgroup | None,
    ) -> None:
        self.process = process
        self.stdout = stdout
        self.stderr = stderr
        # Its command may have killed it already; it is by its start that the rest is found.
        self.record = process_table.child(process.pid)
        self.exit_code: int | None = None
        """As a shell says it: 128 + n for signal n; ``None`` while the shell runs."""
        self.still_running = 0
        """Its processes that were alive when the shell exited."""
        self.killed = 0
        self.left: tuple[LeftProcess, ...] = ()
        self._cgroup = launcher_cgroup(cgroup, self.record)
        self._control = control
        self._status = status
        self._text = b""
        self._status_ended = False
        self._said_goodbye = False
        # One reader of the status pipe at a time: whoever waits for the shell, or for the end.
        self._reading = trio.Lock()
        # One ender at a time: a second would count, and let go of, what the first still ends.
        self._ending = trio.Lock()
        self._ended = False

    @classmethod
    async def start(
        cls,
        argv: tuple[str, ...],
        cwd: Path,
        env: Mapping[str, str],
        cgroup: Cgroup | None = None,
        stdin: bytes = b"",
        plan: bytes = b"",
    ) -> Launched:
        """Start ``argv`` in ``cwd`` with exactly ``env``, in a child of the server's ``cgroup``.

        ``stdin`` is what it can read there, whether or not it does. ``plan`` is how it is to be
        confined (`tools.sandbox.plan`); if that fails, it ends with 126 and has not been run.

        Raises:
            OSError: ``cwd`` does not exist, the arguments are too long, or no process can be made.
        """
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            fds = []
            for reader_is_ours in (False, True, True, True):
                reader, writer = os.pipe()
                keep, give = (reader, writer) if reader_is_ours else (writer, reader)
                ours.callback(os.close, keep)
                theirs.callback(os.close, give)
                os.set_blocking(keep, not reader_is_ours)
                fds.append((reader, writer))
            (control_r, control_w), (status_r, status_w), (out_r, out_w), (err_r, err_w) = fds
            numbers = (str(fd) for fd in (control_r, status_w, out_r, err_r))
            bounds = (str(KILL_GRACE_S), str(LAUNCHER_GIVES_UP_S), str(int("LC_CTYPE" not in env)))
            group = "" if cgroup is None else str(cgroup.path)
            given = theirs.enter_context(_file_of(stdin)) if stdin else None
            shut_in = theirs.enter_context(_file_of(plan)).fileno() if plan else None
            sandbox = ("", "") if shut_in is None else (str(CONFINE), str(shut_in))
            own = (*numbers, *bounds, group, *sandbox)
            process = await trio.lowlevel.open_process(
                [sys.executable, "-I", "-S", str(LAUNCHER), *own, *argv],
                cwd=cwd,
                env=dict(env),
                stdin=subprocess.DEVNULL if given is None else given,
                stdout=out_w,
                stderr=err_w,
                pass_fds=(control_r, status_w, out_r, err_r, *([shut_in] if shut_in else [])),
                start_new_session=True,
            )
            ours.pop_all()
        return cls(process, control_w, status_r, out_r, err_r, cgroup)

    async def wait_shell(self) -> None:
        """Return when the shell has exited, or the launcher is gone without having said so."""
        async with self._reading:
            while self.exit_code is None and not self._status_ended:
                await self._read_status()

    async def _read_status(self) -> None:
        """Take in what the launcher says next; wait for it if there is nothing yet."""
        try:
            data = os.read(self._status, 65_536) if self._status >= 0 else b""
        except BlockingIOError:
            with contextlib.suppress(trio.ClosedResourceError):  # `end` gave up: read as the end
                await trio.lowlevel.wait_readable(self._status)
            return
        self._status_ended = not data
        *lines, self._text = (self._text + data).split(b"\n")
        for line in lines:
            self._understand(line.decode("utf-8", "replace"))

    def _understand(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "exited":
            code, alive = rest.split()
            self.exit_code, self.still_running = int(code), int(alive)
        elif word == "ended":
            self._said_goodbye = True
            self.killed = int(rest)
        elif word == "left":
            found = process_table.describe(int(rest.split()[0]))
            if found is not None:
                self.left = (*self.left, found)

    def hand_over_output(self) -> None:
        """Stop reading the pipes; the launcher reads and forgets what still comes. Idempotent."""
        self._tell(b"d")
        for fd in (self.stdout, self.stderr):
            if fd >= 0:
                os.close(fd)
        self.stdout = self.stderr = -1

    async def wait_gone(self) -> bool:
        """Whether the launcher ends by itself at once, because nothing of its tree is left."""
        with trio.move_on_after(LAUNCHER_DROP_S):
            await self._wait_end()
        return self.process.returncode is not None

    async def _wait_end(self) -> None:
        async with self._reading:
            while not self._status_ended:
                await self._read_status()
        await self.process.wait()

    async def end(self) -> None:
        """End the whole tree: TERM, 2 s, KILL. Shielded, bounded by 3 s, idempotent.

        Afterwards ``killed`` counts the processes it signalled and ``left`` names those it
        could not end. It waits for nobody else's cancellation.
        """
        with trio.CancelScope(shield=True):  # the bound: that of the end under way, and ours
            async with self._ending:
                if not self._ended:
                    await self._end_once()
                    self._ended = True

    async def _end_once(self) -> None:
        with trio.move_on_after(LAUNCHER_ANSWERS_S):
            self._tell(b"k")
            # A tool may have stopped its launcher; a stopped one could not obey.
            process_table.send(self.record, signal.SIGCONT)
            await self._wait_end()
        if not self._said_goodbye or self.process.returncode is None:
            # The bound: two looks at the process table.
            await trio.to_thread.run_sync(self._end_without_launcher)
        self.close()

    def _end_without_launcher(self) -> None:
        """What a launcher that is gone or does not answer leaves to us; blocks for milliseconds."""
        found: dict[int, LeftProcess] = {}
        if self._cgroup is not None:  # first: what forks all the time makes every look a long one
            found.update((one.pid, one) for one in self._cgroup.members())
            self._cgroup.kill()
        for _ in range(2):  # the second look finds what was being born during the first
            tree = (
                *process_table.descendants(self.record.pid),
                *process_table.marked(self.record.pid, self.record.started),
                *(self._cgroup.members() if self._cgroup is not None else ()),
            )
            found.update((one.pid, one) for one in tree)
            for one in tree:
                process_table.send(one, signal.SIGKILL)
            if self._cgroup is not None:
                self._cgroup.kill()
        process_table.send(self.record, signal.SIGKILL)
        self.killed = max(self.killed, len(found))
        looked_until = time.monotonic() + KILLED_DIES_S
        self.left = process_table.still_there(found.values())
        while self.left and time.monotonic() < looked_until:
            time.sleep(0.002)
            self.left = process_table.still_there(self.left)
        if self._cgroup is not None:
            self._cgroup.remove()  # if it is not empty yet, the server's end removes it

    def _tell(self, word: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):  # it is gone, which is what we want of it
            if self._control >= 0:
                os.write(self._control, word)

    def close(self) -> None:
        """Close control and status pipe; to a launcher still there this means: end everything."""
        control, status, self._control, self._status = self._control, self._status, -1, -1
        if status >= 0:
            trio.lowlevel.notify_closing(status)
            os.close(status)
        if control >= 0:
            os.close(control)
        self._status_ended = True


@contextlib.contextmanager
def _file_of(data: bytes) -> Iterator[IO[bytes]]:
    """An open file without a name that holds ``data``, to be read from its beginning.

    Not a pipe: nobody has to write while the command reads, or cares when it does not.
    """
    in_memory = hasattr(os, "memfd_create")
    with (
        os.fdopen(os.memfd_create("stdin"), "w+b", buffering=0)
        if in_memory
        else tempfile.TemporaryFile(buffering=0)
    ) as file:
        rest = memoryview(data)
        while rest:
            rest = rest[file.write(rest) :]
        file.seek(0)
        yield file
