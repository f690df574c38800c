"""Commands in a sandbox: they work, they end, and nothing of them stays (G10)."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import attrs
import pytest
import trio

from crush_trio.agent.ports import ShellResult
from crush_trio.limits import SANDBOX_PROCESSES
from crush_trio.protocol.errors import Refused
from crush_trio.tools.processes.cgroup import Cgroup
from crush_trio.tools.processes.run_processes import RunProcesses
from crush_trio.tools.processes.spill import SpillArea
from crush_trio.tools.sandbox import plan
from crush_trio.tools.sandbox.confinement import Confinement, remove_private
from crush_trio.tools.sandbox.mechanism import VARIABLE, Found, Mechanisms
from crush_trio.tools.sandbox.plan import Mechanism
from tests.e2e.kit import eventually
from tests.tools.sandbox.place import PREFIX, World, demand, protects


@attrs.frozen
class Shell:
    """Runs commands of one sandboxed run."""

    world: World
    processes: RunProcesses

    async def __call__(self, command: str, timeout_s: float = 30.0) -> ShellResult:
        return await self.processes.run_shell(
            command,
            cwd=self.world.workspace,
            env=self.world.env(),
            timeout_s=timeout_s,
            on_output=lambda _stream, _text: None,
            spill_name="call",
        )


@pytest.fixture
async def shell(world: World, mechanism: str) -> AsyncIterator[Shell]:
    processes = world.processes(mechanism, world.sandbox())
    try:
        yield Shell(world, processes)
    finally:
        report = await processes.aclose()
        assert report.left == ()
        await trio.to_thread.run_sync(eventually, lambda: not private_directories())


def private_directories() -> list[str]:
    return [name for name in os.listdir(tempfile.gettempdir()) if name.startswith(PREFIX)]


GIT = "git -c user.name=a -c user.email=a@b"
WORK = {
    "a compiler": "echo 'int main(void){return 7;}' >c.c && gcc c.c -o c; ./c; test $? = 7",
    "a test run": "echo 'import unittest,tempfile\n"
    "class T(unittest.TestCase):\n def test(self): tempfile.mkdtemp()' >test_it.py && "
    "python3 -m unittest -q test_it",
    "pipes and temporary files": 'f=$(mktemp) && seq 9 | sort -r >"$f" && wc -l <"$f"',
}


async def test_what_development_needs_works(shell: Shell) -> None:
    for name, command in WORK.items():
        if name != "a compiler" or shutil.which("gcc"):
            result = await shell(command)
            assert result.exit_code == 0, (name, result.stdout, result.stderr)


async def test_a_repository_can_be_committed_to_and_its_hooks_not_changed(
    shell: Shell, mechanism: str
) -> None:
    made = f"cd {shell.world.root}/home && rm -r ws/.git && git init -q ws"
    assert os.system(made) == 0  # noqa: ASYNC221 - a few milliseconds, before the test begins
    result = await shell(f"{GIT} add plain && {GIT} commit -qm one && git log --oneline | wc -l")
    assert (result.exit_code, result.stdout.strip()) == (0, "1"), result.stderr
    for change in ("git config core.pager evil", "cp plain .git/hooks/pre-push"):
        refused = (await shell(change)).exit_code != 0
        assert refused == protects(mechanism)


async def test_exit_codes_and_signals_are_told_as_without_a_sandbox(shell: Shell) -> None:
    for command, code in {"exit 3": 3, "kill -9 $$": 137, "no-such-program-at-all": 127}.items():
        result = await shell(command)
        assert (result.exit_code, result.still_running) == (code, 0)


async def test_commands_of_a_run_share_their_temporary_files(shell: Shell) -> None:
    await shell('cd "$TMPDIR" && echo kept >note && mkdir -p a/b && touch a/b/c && chmod 0 a/b a')
    assert (await shell('cat "$TMPDIR/note"')).stdout == "kept\n"
    assert len(private_directories()) == 1


NAP = f"sleep 600.{os.getpid()}"
"""Like no other process of the machine."""


async def test_what_is_left_in_the_background_goes_on_until_the_run_ends(shell: Shell) -> None:
    result = await shell(f"{NAP} & echo started")
    assert (result.exit_code, result.still_running) == (0, 1)
    report = await shell.processes.aclose()
    # The process alone is counted, not what the sandbox is made of.
    assert (report.started, report.killed, report.left) == (1, 1, ())


async def test_a_command_that_reaches_its_limit_has_its_grace(shell: Shell) -> None:
    began = time.monotonic()
    result = await shell(f"trap 'echo bye; exit' TERM; {NAP} & wait", timeout_s=0.2)
    assert (result.timed_out, result.stdout) == (True, "bye\n")
    assert time.monotonic() - began < 2


async def test_a_cancelled_command_that_ignores_term_is_gone_with_all_it_started(
    shell: Shell,
) -> None:
    begun = shell.world.workspace / "begun"
    command = f"trap '' TERM; setsid {NAP} & ({NAP} &); touch begun; wait"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shell, command)
        await trio.to_thread.run_sync(eventually, begun.exists)
        nursery.cancel_scope.cancel()
    assert (await shell.processes.aclose()).killed > 0
    assert not _running(NAP)


async def test_a_sandboxed_tree_ends_when_its_launcher_was_killed(shell: Shell) -> None:
    await shell(f"{NAP} & echo")
    (launcher,) = shell.processes.live()
    os.kill(launcher.pid, signal.SIGKILL)
    assert (await shell.processes.aclose()).left == ()
    assert not _running(NAP)


def _running(command: str) -> bool:
    wanted = command.replace(" ", "\0").encode() + b"\0"
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if Path(f"/proc/{name}/cmdline").read_bytes() == wanted:
                return True
        except OSError:
            continue
    return False


BOMB = (
    "import os, time\n"
    "made = 0\n"
    "try:\n"
    "    while made < 5000 and (os.fork() or time.sleep(60) or True):\n"
    "        made += 1\n"
    "except OSError as problem:\n"
    "    print(problem.errno)\n"
)


@pytest.mark.skipif(os.geteuid() == 0, reason="RLIMIT_NPROC does not hold root back")
async def test_processes_without_end_come_to_one(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "SANDBOX_PROCESSES", 20)
    result = await shell(f"python3 -c '{BOMB}'")
    assert result.stdout == f"{errno.EAGAIN}\n"
    assert (await shell.processes.aclose()).left == ()


async def test_a_sandboxed_command_is_bounded_in_its_cgroup(world: World, mechanism: str) -> None:
    folder = world.root / "group"  # stands in for a cgroup whose files can be written
    folder.mkdir()
    confinement = world.confinement(mechanism, world.sandbox())
    processes = RunProcesses(SpillArea(world.root / "s"), None, "", Cgroup(folder), confinement)
    assert (await Shell(world, processes)("true")).exit_code == 0
    await processes.aclose()
    (made,) = folder.iterdir()
    assert (made / "pids.max").read_text() == str(SANDBOX_PROCESSES)
    assert int((made / "memory.max").read_text()) > 0


# --- never without ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "broken",
    [
        Mechanism("bubblewrap", "/nowhere/bwrap"),
        Mechanism("bubblewrap", "/bin/false"),
    ],
)
async def test_a_command_that_cannot_be_confined_is_not_run(
    world: World, broken: Mechanism
) -> None:
    mechanisms = Mechanisms({})
    mechanisms._found = Found(broken)  # as if it had worked when it was tried
    confinement = Confinement(world.sandbox(), mechanisms, PREFIX)
    processes = RunProcesses(SpillArea(world.root / "spill"), confinement=confinement)
    result = await Shell(world, processes)("touch ran")
    await processes.aclose()
    assert result.exit_code not in (0, None)
    assert not (world.workspace / "ran").exists()


async def test_what_is_hidden_in_a_writable_home_stays_so_for_the_next_command(
    world: World,
) -> None:
    demand("bubblewrap")
    home = world.root / "home"
    (home / "dir" / "secrets").mkdir(parents=True)
    (home / "dir" / "secrets" / "key").write_text("marmot")
    sandbox = attrs.evolve(world.sandbox(), writable=(home,), hidden=(home / "dir" / "secrets",))
    processes = world.processes("bubblewrap", sandbox)
    shell = Shell(world, processes)
    moved = await shell("mv ../dir ../elsewhere; touch made ../dir/made")
    found = await shell("cat ../dir/secrets/key ../elsewhere/secrets/key made")
    await processes.aclose()
    assert (moved.exit_code, found.stdout) == (0, "")
    assert (home / "dir" / "made").exists()


@attrs.define(eq=False)
class Exchanging(Confinement):
    """Exchanges the repository for a link, as another command may, after the look at it."""

    async def prepare(self, cwd: Path, env: Mapping[str, str]) -> tuple[bytes, dict[str, str]]:
        made = await super().prepare(cwd, env)
        (cwd / ".git").rename(cwd / "moved")
        (cwd / ".git").symlink_to("../../outside")
        return made


async def test_a_name_exchanged_for_a_link_leads_nowhere(world: World, mechanism: str) -> None:
    mechanisms = Mechanisms({VARIABLE: mechanism})
    confinement = Exchanging(world.sandbox(), mechanisms, PREFIX)
    processes = RunProcesses(SpillArea(world.root / "spill"), confinement=confinement)
    result = await Shell(world, processes)("echo owned >.git/victim")
    await processes.aclose()
    assert result.exit_code == 126
    assert (world.root / "outside" / "victim").read_text() == "secret"


async def test_a_machine_without_a_sandbox_refuses_and_runs_nothing(world: World) -> None:
    confinement = Confinement(world.sandbox(), Mechanisms({VARIABLE: "none"}), PREFIX)
    processes = RunProcesses(SpillArea(world.root / "spill"), confinement=confinement)
    with pytest.raises(Refused) as refused:
        await Shell(world, processes)("touch ran")
    await processes.aclose()
    assert refused.value.code == "sandbox_unavailable"
    assert not (world.workspace / "ran").exists()


def test_what_a_dead_server_left_is_removed_and_nothing_else() -> None:
    mine = Path(tempfile.mkdtemp(prefix=PREFIX))
    (mine / "file").touch()
    other = Path(tempfile.mkdtemp(prefix=f"{PREFIX}other-"))
    try:
        remove_private(PREFIX)
        assert (mine.exists(), other.exists()) == (False, True)
    finally:
        other.rmdir()
