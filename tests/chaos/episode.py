"""One data directory, one server killed again and again, and the check at the end."""

from __future__ import annotations

import random
import shutil
import signal
import tempfile
import threading
import time
from pathlib import Path

import attrs

from tests.chaos.checker import Checker, check_files
from tests.chaos.clients import Clients, model_names
from tests.chaos.history import History
from tests.chaos.server import ChaosServer, Unanswered
from tests.chaos.subscriber import Subscriber

GONE_WITHIN_S = 4.0
"""A launcher whose server died gives up after 2.7 s; the rest is for a loaded machine."""
SHUTDOWN_S = 12.0
ENDS_S = 60.0
WAYS = {
    "random": (
        *(("kill", 48), ("starting", 20), ("stopping", 12)),
        *(("term", 10), ("twice", 3), ("abandoned", 7)),
    ),
    "syscall": (("call", 65), ("recovering", 35)),
    "term": (("term", 80), ("early", 20)),
}
CALLS = (
    ("pwrite", 30, 150),
    ("fdatasync", 30, 60),
    ("send", 20, 120),
    ("write", 10, 40),
    ("unlink", 3, 2),
    ("ftruncate", 3, 3),
    ("open", 4, 40),
    ("fsync", 3, 4),
)
"""Name, weight, and the highest n of "at the n-th call"."""


@attrs.define(eq=False)
class Episode:
    """``restarts`` lives of one server; ``seed`` decides everything that chance decides here."""

    seed: int
    mode: str
    restarts: int
    package: Path | None = None
    fork: bool = False
    until: float = float("inf")
    """`time.monotonic` after which no further life is begun."""
    history: History = attrs.field(factory=History)
    home: Path = attrs.field(init=False)
    server: ChaosServer = attrs.field(init=False)
    clients: Clients = attrs.field(init=False)
    subscribers: list[Subscriber] = attrs.field(factory=list, init=False)

    def run(self) -> bool:
        """Whether every guarantee held; the directory is kept if not."""
        self.home = Path(tempfile.mkdtemp(prefix=f"ch{self.seed}.", dir="/tmp"))
        dice = random.Random(f"{self.seed}/{self.mode}")
        self.server = ChaosServer(self.home, self.package, fork=self.fork)
        self.clients = Clients(self.server, self.history, self.seed, model_names(self.home))
        try:
            self._set_up(dice)
            lives = 0
            while lives < self.restarts and time.monotonic() < self.until:
                self._life(dice)
                lives += 1
            self.history.count("restarts", lives)
            self._finish()
        except (AssertionError, Unanswered, OSError, RuntimeError) as exc:
            self.history.violation(f"the episode broke off: {exc!r}")
        finally:
            self.clients.over.set()
            if not self.server.dead:
                self.server.kill()
            if self.server.zygote is not None:
                self.server.zygote.close()
        if not self.history.violations:
            shutil.rmtree(self.home, ignore_errors=True)
        else:
            (self.home / "violations").write_text("\n\n".join(self.history.violations))
        return not self.history.violations

    # --- the lives ------------------------------------------------------------------------

    def _set_up(self, dice: random.Random) -> None:
        self.server.spawn()
        if not self.server.wait_ready():
            raise RuntimeError("the first start failed")
        for name in ("kept", "deleted"):
            place = self.home / name
            place.mkdir()
            workspace = self.server.call("POST", "/v1/workspaces", {"path": str(place)})[1]["id"]
            strict = name == "kept"
            subscriber = Subscriber(
                self.server,
                self.history,
                workspace,
                strict,
                self.clients.up,
                self.clients.over,
                random.Random(dice.random()),
            )
            subscriber.start()
            self.subscribers.append(subscriber)
            self.clients.start(workspace, deletes=not strict)
        self.clients.purges(self.home)
        self.clients.up.set()

    def _life(self, dice: random.Random) -> None:
        """The server, which is up, ends in one of the ways of this mode and is up again."""
        mode = self.mode if self.mode != "all" else dice.choice(("random", "syscall", "term"))
        if mode == "syscall" and self.server.shim is None:
            mode = "random"
        ways, weights = zip(*WAYS[mode], strict=True)
        way = dice.choices(ways, weights)[0]
        self.history.count(f"ended by {way}")
        getattr(self, f"_end_by_{way}")(dice)
        died = time.monotonic()
        self.clients.up.clear()
        before = self.server.tool_processes()
        if self.server.shim is not None:
            self.server.shim.disarm()
        if way == "abandoned":
            self._wait_for_tools(before, died, way)
        if way in ("starting", "recovering", "early"):
            self._die_early(way, dice)
        began = time.monotonic()
        self.server.spawn()
        if not self.server.wait_ready():
            raise RuntimeError(f"no start after {way}: {self.server.wait(0.1)}")
        took_ms = int((time.monotonic() - began) * 1000)
        self.history.counts["slowest start ms"] = max(
            took_ms, self.history.counts.get("slowest start ms", 0)
        )
        self.clients.up.set()
        self._look_for_leftovers(before, died, way)

    def _look_for_leftovers(
        self, before: dict[tuple[int, str], str], died: float, way: str
    ) -> None:
        """G10: what the dead server's tools had running is gone."""
        left = before.keys() & self.server.tool_processes().keys()
        if left:
            self.history.count("tool processes there at ready", len(left))
        self._wait_for_tools(before, died, way)

    def _wait_for_tools(self, before: dict[tuple[int, str], str], died: float, way: str) -> None:
        left = before.keys() & self.server.tool_processes().keys()
        while left and time.monotonic() < died + GONE_WITHIN_S:
            time.sleep(0.05)
            left = before.keys() & self.server.tool_processes().keys()
        for pid, start in left:
            self.history.violation(f"left after {way}: {pid} {start} {before[(pid, start)]}")

    def _live(self, dice: random.Random) -> None:
        time.sleep(dice.choice((0.02, 0.2, 0.6, 1.2)) * dice.random() * 2)

    def _end_by_kill(self, dice: random.Random) -> None:
        self._live(dice)
        self.server.kill()

    _end_by_abandoned = _end_by_kill
    """No server comes after it until its tools have gone by themselves."""
    _end_by_starting = _end_by_kill
    _end_by_recovering = _end_by_kill

    def _end_by_stopping(self, dice: random.Random) -> None:
        self._live(dice)
        self.server.signal(signal.SIGTERM)
        time.sleep(dice.uniform(0, 0.5))
        self.server.kill()

    def _end_by_twice(self, dice: random.Random) -> None:
        self._live(dice)
        self.server.signal(signal.SIGTERM)
        time.sleep(dice.uniform(0, 0.1))
        self.server.signal(signal.SIGTERM)
        if self.server.wait(SHUTDOWN_S) is None:
            self.history.violation("a second SIGTERM did not end the server")
            self.server.kill()

    def _end_by_term(self, dice: random.Random) -> None:
        self._live(dice)
        began = time.monotonic()
        number = dice.choice((signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
        self.server.signal(number)
        code = self.server.wait(SHUTDOWN_S)
        took_ms = int((time.monotonic() - began) * 1000)
        self.history.counts["slowest shutdown ms"] = max(
            took_ms, self.history.counts.get("slowest shutdown ms", 0)
        )
        if code != 0 or took_ms > 10_000:
            self.history.violation(f"{number.name}: exit {code} after {took_ms} ms")
        if code is None:
            self.server.kill()
        elif self.server.tool_processes():
            self.history.violation(f"left after exit 0: {self.server.tool_processes()}")
        check_files(self.server, self.history)

    _end_by_early = _end_by_term

    def _end_by_call(self, dice: random.Random) -> None:
        """At the n-th call of one kind from now on; by itself if that does not come."""
        assert self.server.shim is not None
        call, _, most = dice.choices(CALLS, [weight for _, weight, _ in CALLS])[0]
        action = dice.choice(("before", "after", "torn"))
        self.server.shim.arm(action, call, dice.randint(1, most))
        if self.server.wait(3.0) is None:
            self.history.count("calls not reached")
            self.server.kill()
        else:
            self.history.count(f"killed at {call}")

    # --- dying before being ready ---------------------------------------------------------

    def _die_early(self, way: str, dice: random.Random) -> None:
        """One or two starts that do not come to their end."""
        for _ in range(dice.randint(1, 2)):
            self.history.count("restarts cut short")
            if way == "recovering" and self.server.shim is not None:
                call = dice.choice(("pwrite", "fdatasync", "fdatasync", "write"))
                action = dice.choice(("before", "after", "torn"))
                most = 40 if call == "pwrite" else 8
                self.server.shim.arm(action, call, dice.randint(1, most))
                self.server.spawn()
                if self.server.wait_ready() or self.server.wait(1) is None:
                    self.history.count("calls not reached")
                    self.server.kill()
                self.server.shim.disarm()
                continue
            self.server.spawn()
            if way == "early":
                time.sleep(dice.uniform(0.0, 1.2))
                self.server.signal(signal.SIGTERM)
                code = self.server.wait(SHUTDOWN_S)
                if code not in (0, -signal.SIGTERM):
                    self.history.violation(f"SIGTERM while starting: exit {code}")
            else:
                time.sleep(dice.uniform(0.05, 1.2))
                self.server.kill()

    # --- the end --------------------------------------------------------------------------

    def _finish(self) -> None:
        """Cancel what is open, wait for the endings, and check."""
        self.clients.over.set()
        self.clients.join()
        for subscriber in self.subscribers:
            for session in self.history.sessions.get(subscriber.workspace, []):
                self.clients.cancel_all(subscriber.workspace, session)
        deadline = time.monotonic() + ENDS_S
        while self._open() and time.monotonic() < deadline:
            time.sleep(0.05)
        self._catch_up()
        Checker(self.server, self.history).check(self.subscribers)
        self.server.signal(signal.SIGTERM)
        code = self.server.wait(SHUTDOWN_S)
        if code != 0:
            self.history.violation(f"the last end: exit {code}")
        if self.server.tool_processes():
            self.history.violation(f"left at the end: {self.server.tool_processes()}")
        check_files(self.server, self.history)

    def _open(self) -> bool:
        for state in ("queued", "running"):
            found = self.server.call("GET", f"/v1/runs?state={state}&limit=1")[1]
            if found["runs"]:
                return True
        return False

    def _catch_up(self) -> None:
        """The subscribers get what they lack, with the cursors they have kept."""
        over = threading.Event()
        for subscriber in self.subscribers:
            if subscriber.thread is not None:
                subscriber.thread.join(10)
            path = f"/v1/workspaces/{subscriber.workspace}/snapshot"
            wanted = self.server.call("GET", path)[1]["seq"]
            subscriber.over = over
            subscriber.start()
            deadline = time.monotonic() + 20
            while subscriber.cursor < wanted and time.monotonic() < deadline:
                time.sleep(0.01)
        over.set()
        for subscriber in self.subscribers:
            if subscriber.thread is not None:
                subscriber.thread.join(10)
            self.history.count("subscriber connections", subscriber.connections)
