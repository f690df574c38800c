"""Which way to confine commands works on this machine: tried once, never assumed."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import attrs

from crush_trio.agent.ports import Sandbox
from crush_trio.limits import SANDBOX_PROBE_AGAIN_S, SANDBOX_PROBE_S
from crush_trio.protocol.errors import Refused
from crush_trio.tools.sandbox.confine import abi
from crush_trio.tools.sandbox.plan import Mechanism, plan_for
from crush_trio.tools.sandbox.syscalls import ARCHITECTURES

CONFINE: Final = Path(__file__).with_name("confine.py")
VARIABLE: Final = "CRUSH_TRIO_SANDBOX_MECHANISM"
"""In the server's environment: ``bubblewrap`` or ``landlock`` alone is tried, or ``none``."""

LANDLOCK_LEAST: Final = 3
"""Before this version (Linux 6.2) a file outside could be emptied with ``truncate``."""

_PLACES: Final = ("/usr/bin", "/usr/local/bin", "/bin", "/run/current-system/sw/bin")


@attrs.frozen
class Found:
    """What can be used, if anything, and per way that cannot be used a clause that says why."""

    mechanism: Mechanism | None
    reasons: tuple[str, ...] = ()

    def sentence(self) -> str:
        """Why there is no sandbox, and what to do."""
        return (
            f"No sandbox can be made here: {'; '.join(self.reasons)}. "
            "Ask for --sandbox off to run without one."
        )


@attrs.define(eq=False)
class Mechanisms:
    """What was found on this machine; one per server. Its methods block."""

    environ: Mapping[str, str] = attrs.field(factory=lambda: os.environ)
    _found: Found | None = attrs.field(default=None, init=False)
    _at: float = attrs.field(default=0.0, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)

    def found(self) -> Found:
        """What was found; looked for again after `SANDBOX_PROBE_AGAIN_S` if it was nothing."""
        with self._lock:
            old = time.monotonic() - self._at > SANDBOX_PROBE_AGAIN_S
            if self._found is None or (self._found.mechanism is None and old):
                self._found = find(self.environ.get(VARIABLE, ""))
                self._at = time.monotonic()
            return self._found

    def demand(self, sandbox: Sandbox) -> Mechanism:
        """What confines a command to ``sandbox``.

        Raises:
            Refused: ``sandbox_unavailable``; nothing may be run instead.
        """
        found = self.found()
        if found.mechanism is None:
            raise Refused("sandbox_unavailable", found.sentence())
        if found.mechanism.name == "landlock" or not found.mechanism.mounts:
            for root in sandbox.writable:
                inside = [path for path in sandbox.hidden if path.is_relative_to(root)]
                there = [path for path in inside if path.exists()]
                if there:
                    raise Refused(
                        "sandbox_unavailable",
                        f"{root} cannot be made writable while {there[0]} in it is hidden: that "
                        "takes bubblewrap (install the package bubblewrap) and user namespaces. "
                        "Work in a directory further in, or ask for --sandbox read-only or off.",
                    )
        return found.mechanism


def find(only: str = "") -> Found:
    """Try bubblewrap, then Landlock; ``only`` one of them, or ``none``. Blocks, bounded."""
    if sys.platform != "linux":
        return Found(None, (f"it needs Linux, and this is {platform.system()}",))
    if platform.machine() not in ARCHITECTURES:
        known = " and ".join(ARCHITECTURES)
        return Found(None, (f"its system call filter knows {known} only",))
    ways: dict[str, Callable[[], Mechanism | str]] = {
        "bubblewrap": _bubblewrap,
        "landlock": _landlock,
    }
    reasons: list[str] = []
    for name, way in ways.items():
        if only in ("", name):
            found = way()
            if isinstance(found, Mechanism):
                return Found(found, tuple(reasons))
            reasons.append(found)
    return Found(None, tuple(reasons) or (f"{VARIABLE} is set to {only}",))


def _bubblewrap() -> Mechanism | str:
    program = shutil.which("bwrap", path=":".join(_PLACES))
    if program is None:
        return "bubblewrap is not installed (install the package bubblewrap)"
    said = ""
    users = (False, True) if os.geteuid() == 0 else (True,)
    for mounts, new_user in ((mounts, new_user) for mounts in (True, False) for new_user in users):
        mechanism = Mechanism("bubblewrap", program, new_user, mounts=mounts)
        problem = _problem_with(mechanism)
        if problem is None:
            return mechanism
        said = problem
    return f"bubblewrap does not work here ({said})"


def _landlock() -> Mechanism | str:
    version = abi()
    if version < LANDLOCK_LEAST:
        kernel = platform.release()
        offers = f"offers version {version}" if version else "does not offer it"
        return f"Landlock is needed in version {LANDLOCK_LEAST}, and Linux {kernel} {offers}"
    root = os.geteuid() == 0
    problem = None
    for new_user, mounts in ((not root, True), (True, True), (False, False)):
        mechanism = Mechanism("landlock", new_user=new_user, abi=version, mounts=mounts)
        problem = _problem_with(mechanism)
        if problem is None:
            return mechanism
    return f"Landlock does not work here ({problem})"


def _problem_with(mechanism: Mechanism) -> str | None:
    """What is wrong when a command that does nothing is confined; ``None`` if it ends well."""
    try:
        done = _tried(mechanism)
    except subprocess.TimeoutExpired:
        return f"a trial took more than {SANDBOX_PROBE_S:g} s"
    except OSError as exc:  # as of a full disk: no reason to run anything unconfined
        return f"a trial cannot be made: {exc.strerror or exc}"
    if done.returncode == 0:
        return None
    last = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
    return last[:200] or f"exit code {done.returncode}"


def _tried(mechanism: Mechanism) -> subprocess.CompletedProcess[bytes]:
    with tempfile.TemporaryDirectory(prefix="crush-trio-probe-") as made:
        workspace = Path(os.path.realpath(made))
        (workspace / ".envrc").touch()  # something to protect, so that this is tried as well
        sandbox = Sandbox("workspace-write", workspace, (workspace,))
        plan = plan_for(mechanism, sandbox, private_tmp=workspace, cwd=workspace)
        with tempfile.TemporaryFile() as file:
            file.write(plan)
            file.seek(0)
            argv = [sys.executable, "-I", "-S", str(CONFINE), str(file.fileno())]
            return subprocess.run(
                [*argv, "/bin/sh", "-c", ":"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                pass_fds=(file.fileno(),),
                timeout=SANDBOX_PROBE_S,
            )
