"""The server's own cgroup, where one can be made: below it each command has one, and ends as one.

The kernel knows who is in a cgroup, however a process forked, renamed itself or cleared its
environment, also when its launcher was killed. Version 2 only, below the server's own cgroup, and
only if that may be written: root in a container, a delegated unit of systemd. Nothing is moved but
the commands themselves, before their first instruction. Without one, the subreaper
(`tools.processes.launcher`) does the work alone.

A server's cgroup is named ``crush-trio-<data directory>-<pid>-<start>``, a command's after its
launcher, ``<pid>-<start>``. Only directories named so are ever removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from crush_trio.limits import CGROUP_PROBE_S, KILL_GRACE_S, KILL_TOTAL_S, SHUTDOWN_TOOLS_S
from crush_trio.protocol.runs import LeftProcess
from crush_trio.tools.processes import process_table

NOTE = "process-cgroup"
"""The file in the data directory that names the server's cgroup, for the next start."""

_SERVER_NAME = re.compile(r"crush-trio-[0-9a-f]{8}-([0-9]+)-([0-9]+)")
_LOOK_AGAIN_S = 0.05  # a cgroup that is being emptied


def cgroup_of(pid: int | str = "self", proc: Path = Path("/proc")) -> Path | None:
    """The directory of a process's cgroup, version 2; ``None`` if it cannot be seen."""
    try:
        lines = (proc / str(pid) / "cgroup").read_text().splitlines()
        mounts = (proc / "self" / "mountinfo").read_text().splitlines()
    except OSError:
        return None
    paths = [line.removeprefix("0::") for line in lines if line.startswith("0::")]
    for mount in mounts:
        before, _, after = mount.partition(" - ")
        if not paths or after.split(" ")[0] != "cgroup2":
            continue
        root, point = (_unescaped(field) for field in before.split(" ")[3:5])
        below = os.path.relpath(paths[0], root) if _is_below(paths[0], root) else None
        if below is not None:
            return Path(os.path.normpath(os.path.join(point, below)))
    return None


def _is_below(path: str, root: str) -> bool:
    return path.startswith("/") and (root == "/" or path == root or path.startswith(f"{root}/"))


def _unescaped(field: str) -> str:
    """A path of ``mountinfo``, where spaces and the like are octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


@attrs.frozen
class Cgroup:
    """One cgroup of ours, with everything below it. Every method blocks for milliseconds."""

    path: Path

    def exists(self) -> bool:
        """Whether it is there, and really is a cgroup."""
        return (self.path / "cgroup.procs").is_file()

    def members(self) -> tuple[LeftProcess, ...]:
        """The live processes in it and below it."""
        pids = {pid for folder in self._folders() for pid in _pids_in(folder)}
        found = (process_table.describe(pid) for pid in sorted(pids))
        return tuple(one for one in found if one is not None)

    def has(self, pid: int) -> bool:
        """Whether a process is in it or below it."""
        path = cgroup_of(pid)
        return path is not None and path.is_relative_to(self.path)

    def kill(self) -> None:
        """KILL for everything in it, whatever it forks meanwhile."""
        with contextlib.suppress(OSError):  # gone: so is what was in it
            (self.path / "cgroup.kill").write_text("1")

    def remove(self) -> bool:
        """Remove it with everything below it, if nothing lives there; whether it is gone."""
        for folder in reversed(self._folders()):
            with contextlib.suppress(OSError):  # not empty, or gone
                folder.rmdir()
        return not self.path.exists()

    def _folders(self) -> list[Path]:
        return [Path(folder) for folder, _, _ in os.walk(self.path)]

    async def end(
        self, grace_s: float = KILL_GRACE_S, total_s: float = KILL_TOTAL_S
    ) -> tuple[LeftProcess, ...]:
        """TERM, a grace, KILL for all of it, then remove it.

        Returns after ``total_s`` at most, with what is alive all the same.
        """
        began = trio.current_time()
        told: set[LeftProcess] = set()
        while left := await trio.to_thread.run_sync(self.members):
            spent = trio.current_time() - began
            if spent >= total_s:
                return left
            if spent >= grace_s:
                await trio.to_thread.run_sync(self.kill)
            for one in left:
                if one not in told:
                    process_table.send(one, signal.SIGTERM)
                    process_table.send(one, signal.SIGCONT)
                    told.add(one)
            await trio.sleep(_LOOK_AGAIN_S)
        await trio.to_thread.run_sync(self.remove)
        return ()


def _pids_in(folder: Path) -> list[int]:
    try:
        return [int(pid) for pid in (folder / "cgroup.procs").read_text().split() if pid != "0"]
    except OSError:
        return []


def process_control(cgroup: Cgroup | None) -> str:
    """How command trees are kept together: ``cgroup``, ``subreaper``, or ``process_group``."""
    if cgroup is not None:
        return "cgroup"
    return "subreaper" if process_table.HAS_PROC else "process_group"


# --- the server's -------------------------------------------------------------------------


def make_server_cgroup(data_dir: Path) -> Cgroup | None:
    """A cgroup for this server's commands; ``None`` where none can be made or used.

    Blocks for at most `CGROUP_PROBE_S`. Whether it works is tried with a process that enters it.
    What an earlier server noted must have been dealt with (`left_by_last_server`).
    """
    own = cgroup_of()
    started = process_table.start_time(os.getpid()) or ""
    if own is None:
        return None
    ticks = started.partition("@")[0]
    made = Cgroup(own / f"{_prefix(data_dir)}{os.getpid()}-{ticks}")
    _remove_empty_ones(own)
    try:
        if str(os.getpid()) not in (own / "cgroup.procs").read_text().split():
            return None  # another hierarchy than ours is mounted there
        _write_note(data_dir, made.path)  # first: what is made is always known
        made.path.mkdir()
    except OSError:
        with contextlib.suppress(OSError):  # a note of nothing does no harm
            (data_dir / NOTE).unlink(missing_ok=True)
        return None
    if _can_be_entered(made.path):
        for controller in ("+pids", "+memory"):  # for bounds of sandboxed commands
            with contextlib.suppress(OSError):  # not there for us: others bound them, or nobody
                (made.path / "cgroup.subtree_control").write_text(controller)
        return made
    made.remove()
    (data_dir / NOTE).unlink(missing_ok=True)
    return None


def _write_note(data_dir: Path, made: Path) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    with open(os.open(data_dir / NOTE, flags, 0o600), "w", encoding="utf-8") as note:
        note.write(str(made))


def _remove_empty_ones(own: Path) -> None:
    """Remove empty cgroups of servers that died, whatever their data directory was."""
    with contextlib.suppress(OSError):  # another tidies up just now
        for entry in os.scandir(own):
            named = _SERVER_NAME.fullmatch(entry.name)
            started = process_table.start_time(int(named[1])) if named is not None else None
            if named is not None and (started is None or started.partition("@")[0] != named[2]):
                Cgroup(Path(entry.path)).remove()


def _can_be_entered(path: Path) -> bool:
    command = 'echo 0 >"$0/cgroup.procs" && grep "^0::" /proc/self/cgroup'
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", command, str(path)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=CGROUP_PROBE_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    inside = done.stdout.decode("utf-8", "replace").strip().endswith(f"/{path.name}")
    return done.returncode == 0 and inside and (path / "cgroup.kill").exists()


@asynccontextmanager
async def server_cgroup(data_dir: Path) -> AsyncIterator[Cgroup | None]:
    """This server's cgroup, or ``None``; leaving the block ends what is still in it, bounded.

    What the last server of this data directory has left is ended first (G10).
    """
    left = await trio.to_thread.run_sync(left_by_last_server, data_dir)
    if left is not None:
        await left.end()
    made = await trio.to_thread.run_sync(make_server_cgroup, data_dir)
    try:
        yield made
    finally:
        if made is not None:
            with trio.move_on_after(SHUTDOWN_TOOLS_S, shield=True):
                await made.end(grace_s=0.0, total_s=SHUTDOWN_TOOLS_S)
                if not made.path.exists():
                    (data_dir / NOTE).unlink(missing_ok=True)


def left_by_last_server(data_dir: Path) -> Cgroup | None:
    """The cgroup that the last server of this data directory has left, if it is still there.

    Its name must be one of ours for this directory, and this process must not live in it.
    """
    try:
        noted = Path((data_dir / NOTE).read_text().strip())
    except OSError:
        return None
    named = re.fullmatch(re.escape(_prefix(data_dir)) + r"[0-9]+-[0-9]+", noted.name)
    left = Cgroup(noted)
    if named is None or not noted.is_absolute() or not left.exists() or left.has(os.getpid()):
        return None
    return left


def launcher_cgroup(server: Cgroup | None, launcher: LeftProcess) -> Cgroup | None:
    """The cgroup of one launcher's command, if the server has one."""
    if server is None:
        return None
    return Cgroup(server.path / f"{launcher.pid}-{launcher.started.partition('@')[0]}")


def _prefix(data_dir: Path) -> str:
    digest = hashlib.sha256(os.fsencode(os.path.realpath(data_dir))).hexdigest()
    return f"crush-trio-{digest[:8]}-"
