"""A full disk and a broken one, met by a real server (contract 3, "when the store fails")."""

from __future__ import annotations

import contextlib
import errno
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from tests.chaos.shim import Shim, why_not
from tests.e2e.kit import Server, eventually, script

TMPFS_BYTES = 4 * 1024 * 1024

needs_shim = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")


@attrs.define
class Disk:
    """A disk that can be full; ``why`` says how."""

    server: Server
    directory: Path
    shim: Shim | None

    def fill(self) -> None:
        """From now on nothing more fits on it."""
        if self.shim is not None:
            self.shim.arm("fail", "pwrite", error=errno.ENOSPC, again=True)
            return
        with contextlib.suppress(OSError), (self.directory / "ballast").open("wb") as file:
            for size in (65536, 4096, 512, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(b"\0" * size)
                        file.flush()

    def free(self) -> None:
        """There is room again."""
        if self.shim is not None:
            self.shim.disarm()
        else:
            (self.directory / "ballast").unlink()


@pytest.fixture(params=["tmpfs", "ENOSPC"])
def disk(request: pytest.FixtureRequest, home: Path) -> Iterator[Disk]:
    """A running server whose data directory lies on a small disk of its own."""
    server = Server(home)
    with contextlib.ExitStack() as cleanup:
        shim = None
        if request.param == "ENOSPC":
            if why_not():
                pytest.skip(why_not())
            shim = Shim(home)
            server.env.update(shim.env)
        else:
            cleanup.enter_context(_mounted(home / "data"))
        server.start()
        yield Disk(server, home / "data", shim)
        if server.process is not None and server.process.poll() is None:
            server.kill()


@contextlib.contextmanager
def _mounted(place: Path) -> Iterator[None]:
    place.mkdir(mode=0o700)
    command = ["mount", "-t", "tmpfs", "-o", f"size={TMPFS_BYTES},mode=0700", "none", str(place)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_refuses_prompts_and_loses_nothing(disk: Disk, project: Path) -> None:
    """G1, G2: 507 `disk_full`, reads go on; the running run ends failed when there is room, the
    queued one goes on, and what was acknowledged is there after a kill."""
    server = disk.server
    workspace = server.workspace(project)
    session, other = server.session(workspace), server.session(workspace)
    slow = script(project / "slow.json", [{"text": "word " * 50, "tokens": 2000, "every_ms": 20}])
    server.prompt(workspace, session, "slow", model=slow, run_id="running")
    server.prompt(workspace, session, "list", run_id="queued")
    eventually(lambda: bool(server.record("running")["waiting_on"] == "model"))
    disk.fill()
    path = f"/v1/workspaces/{workspace}/agent"
    refused = {"session_id": other, "prompt": "list " * 5000, "run_id": "refused"}
    status, answer = server.call("POST", path, refused)
    assert (status, answer["code"], answer["retryable"]) == (507, "disk_full", True)
    assert server.call("GET", "/v1/runs/refused")[0] == 404
    assert server.record("queued")["state"] == "queued"
    assert server.get(f"/v1/workspaces/{workspace}/sessions/{session}/messages")
    # It has noticed by itself, at a checkpoint of its text, and waits for room to say so.
    eventually(lambda: not _is_streaming(server, workspace, session))
    assert server.record("running")["state"] == "running"
    disk.free()
    record = server.ended("running")
    assert (record["outcome"], record["error"]["code"]) == ("failed", "disk_full")
    assert server.ended("queued")["outcome"] == "completed"
    assert server.call("POST", path, refused)[0] == 202
    assert server.ended("refused")["state"] == "finished"
    server.kill()
    server.start()
    assert server.record("running") == record
    assert server.record("queued")["outcome"] == "completed"


def _is_streaming(server: Server, workspace: str, session: str) -> bool:
    with server.stream(workspace, f"after=now&session_id={session}") as stream:
        with contextlib.suppress(TimeoutError):
            stream.until(lambda frame: frame["type"] == "message_delta", timeout=0.5)
            return True
        return False


def test_a_server_on_a_full_disk_still_ends_in_order(disk: Disk, project: Path) -> None:
    """G2, G11: exit 0 in time; the next start finds what was acknowledged."""
    server = disk.server
    workspace = server.workspace(project)
    session = server.session(workspace)
    hold = script(project / "hold.json", [{"text": "some"}, {"silence": True}])
    server.prompt(workspace, session, "go", model=hold, run_id="running")
    server.prompt(workspace, session, "list", run_id="queued")
    eventually(lambda: bool(server.record("running")["waiting_on"] == "model"))
    disk.fill()
    assert server.stop(signal.SIGTERM, timeout=11) == 0
    disk.free()
    server.start()
    assert server.ended("running")["outcome"] in ("cancelled", "lost")
    assert server.ended("queued")["outcome"] == "completed"


@needs_shim
@pytest.mark.parametrize(
    ("call", "error"),
    [("pwrite", errno.EFBIG), ("fdatasync", errno.EIO)],
)
def test_a_write_error_ends_the_server_with_75_and_the_next_start_recovers(
    home: Path, project: Path, call: str, error: int
) -> None:
    """G1, G2: a failed sync is never tried again; nothing acknowledged is lost, and what was not
    is either whole or not there."""
    shim = Shim(home)
    server = Server(home)
    server.env.update(shim.env)
    server.start()
    workspace = server.workspace(project)
    session = server.session(workspace)
    hold = script(project / "hold.json", [{"text": "some"}, {"silence": True}])
    server.prompt(workspace, session, "go", model=hold, run_id="running")
    server.prompt(workspace, session, "list", run_id="queued")
    eventually(lambda: bool(server.record("running")["waiting_on"] == "model"))
    shim.arm("fail", call, error=error, again=True)
    body = {"session_id": session, "prompt": "list", "run_id": "unknown"}
    status, answer = server.call("POST", f"/v1/workspaces/{workspace}/agent", body)
    assert (status, answer["code"], answer["retryable"]) == (503, "store_failed", True)
    assert server.wait_exit() == 75
    assert shim.fired >= 1
    shim.disarm()
    server.start()
    assert server.ended("running")["outcome"] == "lost"
    assert server.ended("queued")["outcome"] == "completed"
    again = server.post(f"/v1/workspaces/{workspace}/agent", body, expect=202)
    assert again["run_id"] == "unknown"
    assert server.ended("unknown")["outcome"] == "completed"
    events = server.events(workspace)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert server.stop() == 0


@needs_shim
def test_a_server_that_cannot_write_at_its_start_says_so(home: Path) -> None:
    """G14: exit 4 and one sentence, for an error as well as for a full disk."""
    shim = Shim(home)
    for error, word in ((errno.EIO, "I/O error"), (errno.ENOSPC, "full")):
        server = Server(home)
        server.env.update(shim.env)
        shim.arm("fail", "pwrite", 1, error=error, again=True)
        with pytest.raises(AssertionError, match=word):
            server.start()
        assert server.wait_exit() == 4
        shim.disarm()
