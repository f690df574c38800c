"""The sandbox of one run's commands: their plan, their environment, their private directory."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import attrs
import trio

from crush_trio.agent.ports import Sandbox
from crush_trio.limits import SANDBOX_TMP_REMOVE_S
from crush_trio.tools.sandbox.bubblewrap import tmp_seen_as
from crush_trio.tools.sandbox.mechanism import Mechanisms
from crush_trio.tools.sandbox.plan import plan_for

NOT_PASSED = ("SSH_AUTH_SOCK",)
"""Variables of a tool's environment that lead out of a sandbox."""


@attrs.define(eq=False)
class Confinement:
    """Confines the commands of one run, or of one background job, together.

    They share a private directory for temporary files, made before the first of them and gone
    after the last.

    Args:
        sandbox: What they may touch.
        mechanisms: What this machine can do.
        prefix: Of the private directory's name; see `remove_private`.
    """

    sandbox: Sandbox
    mechanisms: Mechanisms
    prefix: str
    _tmp: Path | None = attrs.field(default=None, init=False)

    async def prepare(self, cwd: Path, env: Mapping[str, str]) -> tuple[bytes, dict[str, str]]:
        """The plan of one command (`tools.sandbox.confine`), and its environment.

        Raises:
            Refused: ``sandbox_unavailable``: it must not be run.
            OSError: The private directory cannot be made.
        """
        # Both only look, and who is cancelled leaves them behind: a disk may not answer.
        mechanism = await trio.to_thread.run_sync(
            self.mechanisms.demand, self.sandbox, abandon_on_cancel=True
        )
        if self._tmp is None:  # no await from here on to the assignment: it is made once
            self._tmp = _made(self.prefix)
        tmp = self._tmp
        plan = await trio.to_thread.run_sync(
            lambda: plan_for(mechanism, self.sandbox, private_tmp=tmp, cwd=cwd),
            abandon_on_cancel=True,
        )
        passed = {name: value for name, value in env.items() if name not in NOT_PASSED}
        wraps = mechanism.name == "bubblewrap"
        seen_as = tmp_seen_as(self.sandbox, tmp) if wraps else str(tmp)
        return plan, passed | {"TMPDIR": seen_as}

    async def aclose(self) -> None:
        """Remove the private directory. Bounded: what takes longer goes on in its thread."""
        tmp, self._tmp = self._tmp, None
        if tmp is not None:
            with trio.move_on_after(SANDBOX_TMP_REMOVE_S, shield=True):
                await trio.to_thread.run_sync(_remove, tmp, abandon_on_cancel=True)


def _made(prefix: str) -> Path:
    return Path(os.path.realpath(tempfile.mkdtemp(prefix=prefix)))


def remove_private(prefix: str) -> None:
    """Remove the private directories that an earlier server with this prefix has left; blocking.

    Its processes must be gone. What cannot be removed stays: nobody has to wait for it.
    """
    place = Path(tempfile.gettempdir())
    named = re.compile(re.escape(prefix) + r"[a-z0-9_]{8}")
    with contextlib.suppress(OSError):  # it may be passed through, and not be listed
        for name in filter(named.fullmatch, os.listdir(place)):
            with contextlib.suppress(FileNotFoundError):  # somebody else was faster
                if (place / name).lstat().st_uid == os.geteuid():
                    _remove(place / name)


def _remove(tree: Path) -> None:
    """Remove a directory with everything in it, also what a command has locked."""
    shutil.rmtree(tree, ignore_errors=True)
    if tree.exists():
        with contextlib.suppress(OSError):  # it may have locked the directory itself
            os.chmod(tree, 0o700)
        for folder, names, _ in os.walk(tree):  # which looks into each only after this
            for path in (os.path.join(folder, name) for name in names):
                with contextlib.suppress(OSError):  # then it stays
                    if not os.path.islink(path):
                        os.chmod(path, 0o700)
        shutil.rmtree(tree, ignore_errors=True)
