"""One schedule's server: the real host over a disk of its own pace, and clients that use it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import attrs
import trio

from crush_trio.host import editing
from crush_trio.host.asks.permissions import answer_permission
from crush_trio.host.host import Host, HostOptions, open_host
from crush_trio.host.runs.open_run import OpenRun
from crush_trio.host.session import Session
from crush_trio.host.session_life import create_session, delete_session
from crush_trio.host.workspace import Workspace
from crush_trio.journal import Journal
from crush_trio.protocol.errors import Refused, StoreError
from crush_trio.protocol.ids import RunId, SessionId, WorkspaceId
from crush_trio.protocol.requests import PermissionEcho, PermissionGrant, PromptRequest
from crush_trio.protocol.runs import CancelledBy, Receipt
from crush_trio.server.routes import prompts as prompt_route
from crush_trio.server.services import Services
from crush_trio.store.memory_rows import Tables
from tests.explore.acts import Injected, make_kit
from tests.explore.disk import Disk
from tests.explore.engine import Choices, run_schedule
from tests.explore.isolation import forget_everything, keep_so_far
from tests.explore.ledger import Ledger
from tests.explore.strategies import Recorded

PATH = Path("/")
ME = CancelledBy("me")
SESSIONS = 2


@attrs.frozen
class Template:
    """A database with one workspace and some sessions, which every schedule starts from."""

    tables: Tables
    workspace_id: WorkspaceId
    sessions: tuple[SessionId, ...]


@attrs.define(eq=False)
class Explored:
    """One server and its clients. Clients are tasks: `go` starts one, `done` waits for all."""

    choices: Choices
    template: Template
    options: HostOptions = attrs.field(factory=HostOptions)
    keep_states: bool = False
    revived: bool = False
    titles: bool = False
    ledger: Ledger = attrs.field(factory=Ledger, init=False)
    journal: Journal = attrs.field(factory=Journal, init=False)
    gate: trio.Event = attrs.field(factory=trio.Event, init=False)
    fail_step: int = attrs.field(default=-1, init=False)
    after: list[Callable[[], None]] = attrs.field(factory=list, init=False)
    host: Host = attrs.field(init=False)
    disk: Disk = attrs.field(init=False)
    _outer: trio.CancelScope = attrs.field(init=False)
    _watchers: trio.Nursery = attrs.field(init=False)
    _watching: int = attrs.field(default=0, init=False)
    _unwatched: trio.Event = attrs.field(factory=trio.Event, init=False)
    _clients: trio.Nursery = attrs.field(init=False)
    _names: int = attrs.field(default=0, init=False)
    _steps: int = attrs.field(default=0, init=False)
    _moments: int = attrs.field(default=0, init=False)
    _waiting: dict[int, list[trio.Event]] = attrs.field(factory=dict, init=False)
    services: Services = attrs.field(init=False)

    @asynccontextmanager
    async def opened(self, tables: Tables | None = None) -> AsyncIterator[None]:
        """Start the server; leaving the block is an orderly shutdown, and the end of the disk."""
        self.disk = Disk(
            publish=self._publish,
            draw=self.choices.draw,
            told=self.ledger.told,
            tables=self.template.tables if tables is None else tables,
            keep=self.keep_states,
        )
        self.disk.on_commit = self._tick
        kit = make_kit(self)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.disk.write)
            with trio.CancelScope() as self._outer:
                self._watchers = nursery
                async with open_host(self.disk, self.journal, kit, self.options) as self.host:
                    self.services = cast(
                        "Services",
                        SimpleNamespace(
                            host=self.host,
                            store=self.disk,
                            kit=kit,
                            options=SimpleNamespace(allow_script_models=True),
                        ),
                    )
                    async with trio.open_nursery() as self._clients:
                        nursery.start_soon(self._stop_when_the_store_fails)
                        yield
                    await self._finish()
                    self.ledger.stopped = True
                    for each in self.ledger.entries.values():
                        self.ledger.cover(each, "shutdown")
            # Every subscriber is told that it is over, and has everything (G9, G11).
            while self._watching:
                await self._unwatched.wait()
            self.disk.sealed = True
            await self.disk.written()
            self.ledger.closed = True
            self.ledger.wrongs += self.disk.late
            nursery.cancel_scope.cancel()
        self.disk.last_told()

    async def _finish(self) -> None:
        """The clients are done: what waits for one is let go, and everything has to end."""
        self.gate.set()
        if not self.ledger.stopped:
            for number, session_id in enumerate(self.template.sessions):
                for entry in self.ledger.open_in(session_id):
                    # What somebody has stopped must end without another word.
                    if entry.natural is not None or {*entry.covered} - {"disconnect"}:
                        continue
                    await self.cancel(entry.id, number)
            await self.all_ended()
        self.choices.disarm()

    async def _stop_when_the_store_fails(self) -> None:
        await self.disk.failed.wait()
        self.note_stop()
        self.host.stop()

    def _publish(self, workspace_id: WorkspaceId, events: Any) -> None:
        self.journal.publish(workspace_id, events)
        self.ledger.published(workspace_id, events)

    async def step(self, run_id: RunId) -> None:
        """One await of a model or a tool; the ``fail_step``-th breaks."""
        await trio.lowlevel.checkpoint()
        self._tick()
        self._steps += 1
        if self._steps == self.fail_step:
            entry = self.ledger.entries.get(run_id)
            if entry is not None:
                entry.injected = True
            raise Injected

    # --- clients --------------------------------------------------------------------------

    @property
    def workspace_id(self) -> WorkspaceId:
        """The one workspace."""
        return self.template.workspace_id

    def sid(self, number: int) -> SessionId:
        """A session's id by number."""
        return self.template.sessions[number]

    def go(
        self, client: Callable[..., Awaitable[object]], *args: Any, at: int = 0, **named: Any
    ) -> None:
        """Let a client do something, alongside everybody else.

        ``at``: not before that many commits and steps of models and tools, or until nobody has
        anything to do; `some` draws one.
        """

        async def act() -> None:
            if at:
                await self._moment(at)
            await client(*args, **named)

        self._clients.start_soon(act, name=getattr(client, "__name__", "client"))

    def watch(self, follow: Callable[[], Awaitable[None]]) -> None:
        """Let a subscriber read until the server stops."""

        async def act() -> None:
            await follow()
            self._watching -= 1
            self._unwatched.set()
            self._unwatched = trio.Event()

        self._watching += 1
        self._watchers.start_soon(act, name="follower")

    def some(self, most: int = 20) -> int:
        """A moment for `go`."""
        return self.choices.draw(most)

    async def _moment(self, number: int) -> None:
        event = trio.Event()
        self._waiting.setdefault(number, []).append(event)
        with trio.move_on_after(0.05):  # time goes by only when nobody can do anything
            await event.wait()

    def _tick(self, _: object = None) -> None:
        self._moments += 1
        for event in self._waiting.pop(self._moments, ()):
            event.set()

    async def workspace(self) -> Workspace:
        """As every route: opened, or waited for."""
        return await self.host.open(self.workspace_id)

    async def post(
        self, prompt: str, if_busy: str | None = "enqueue", session: int = 0, **named: Any
    ) -> str:
        """Send a prompt; the run id, or the code of the refusal. As the prompt route does it."""
        self._names += 1
        run_id = named.pop("run_id", None) or f"r{self._names}"
        kind = named.pop("kind", "prompt")
        request = PromptRequest(self.sid(session), prompt, run_id=run_id, if_busy=if_busy, **named)
        digest = f"{request.session_id} {prompt} {if_busy}"
        try:
            workspace = await self.workspace()
            with self.host.using(workspace):
                noting = cast("Workspace", _Noting(workspace, self))
                receipt = await prompt_route.accepted(
                    self.services, noting, request, digest, kind=kind
                )
        except (Refused, StoreError) as exc:
            return exc.code
        self._check_receipt(receipt, request)
        self.ledger.acked(run_id, receipt)
        return run_id

    def _check_receipt(self, receipt: Receipt, request: PromptRequest) -> None:
        if receipt.session_id != request.session_id:
            self.ledger.wrong(f"the receipt of {receipt.run_id} names another session")

    async def hang_up(self, prompt: str, **named: Any) -> None:
        """Send a prompt and lose the connection at some moment."""
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def send() -> None:
                    await self.post(prompt, **named)
                    nursery.cancel_scope.cancel()

                nursery.start_soon(send)
                for _ in range(self.choices.draw(4)):
                    await trio.lowlevel.checkpoint()
                scope.cancel()

    async def cancel(self, run: str | None = None, session: int = 0) -> None:
        """Cancel a session, or one run of it, and wait for the receipt."""
        session_id = self.sid(session)
        try:
            found = await (await self.workspace()).session(session_id)
            await self._cancel(found, run)
        except (Refused, StoreError):
            return

    async def _cancel(self, session: Session, run: str | None) -> None:
        wanted = self.ledger.open_in(session.id)
        if run is not None:
            wanted = [each for each in wanted if each.id == run]
        ticket = session.cancel(ME, None if run is None else RunId(run))
        for each in wanted:
            self.ledger.cover(each, "cancel")
        now = session.queue.current
        late = [now.id] if now is not None and now.outcome is not None else []
        self.ledger.too_late(each for each in late if run in (None, each))
        self.ledger.receipt((await ticket.wait()).value, wanted)

    async def cancel_sub_agent(self) -> None:
        """Cancel the oldest sub-agent that is open, and nothing else."""
        with suppress(Refused, StoreError):
            workspace = await self.workspace()
            for run in self.host.open_runs.values():
                record = run.row.record
                if record.parent_run is not None:
                    self.ledger.below_cancelled.add(record.parent_run)
                    await (await workspace.session(run.session_id)).cancel(ME, run.id).wait()
                    return

    async def answer(self, action: str) -> None:
        """Decide the oldest permission request, if there is one."""
        with suppress(Refused, StoreError):
            waiting = (await self.workspace()).home.waiting
            for pending in waiting.undecided("permission")[:1]:
                grant = PermissionGrant(PermissionEcho(id=pending.row.id), action)
                told = await answer_permission(waiting, grant, "ana")
                if told.resolved:
                    self.ledger.answered(pending.row.id, action)

    async def clear(self, session: int = 0) -> None:
        """Cancel what waits in a session."""
        with suppress(Refused, StoreError):
            found = await (await self.workspace()).session(self.sid(session))
            running = found.queue.current
            wanted = [
                each
                for each in self.ledger.open_in(found.id)
                if running is None or each.id != running.id
            ]
            ticket = found.clear(ME)
            for each in wanted:
                self.ledger.cover(each, "clear")
            self.ledger.receipt((await ticket.wait()).value, wanted)

    async def move(self, run: str, position: int = 0, prompt: str | None = None) -> None:
        """Edit a queued run."""
        with suppress(Refused, StoreError):
            found = await (await self.workspace()).session(self.sid(0))
            self.ledger.moved.add(found.id)
            await editing.edit(found, RunId(run), prompt, position).wait()

    async def delete(self, session: int = 0) -> None:
        """Delete a session."""
        session_id = self.sid(session)
        with suppress(Refused, StoreError):
            workspace = await self.workspace()
            self.ledger.doomed.add(session_id)
            before = self.ledger.cover_all(session_id, "deleted")
            await delete_session(workspace, session_id, ME)
            for each in before:
                if each.ended is None and not each.refused:
                    self.ledger.wrong(f"I1: the session of {each.id} went before it ended")
            self.ledger.gone.add(session_id)
            self.ledger.facts.append(("gone", session_id, ""))

    async def new_session(self) -> SessionId:
        """Make a session."""
        return (await create_session(await self.workspace(), "more")).id

    async def close(self) -> None:
        """Close the workspace for good (`POST …/close`)."""
        self.cover_everything("closed")
        before = list(self.ledger.entries.values())
        doomed = {*self.template.sessions} - self.ledger.doomed
        self.ledger.doomed |= doomed
        try:
            with suppress(Refused, StoreError):
                await self.host.end(self.workspace_id, ME)
                for each in before:
                    if each.ended is None and not each.refused:
                        self.ledger.wrong(f"I1: the workspace of {each.id} closed before it ended")
        finally:
            self.ledger.doomed -= doomed  # what is accepted from now on opens it again

    async def purge(self) -> str:
        """Delete the workspace with everything in it; the code of the refusal, or nothing."""
        try:
            await self.host.purge(self.workspace_id)
        except (Refused, StoreError) as exc:
            return exc.code
        self.ledger.purged = True
        return ""

    async def stop(self) -> None:
        """What a signal does: stop the host, from any moment on."""
        await trio.lowlevel.checkpoint()
        self.note_stop()
        self.host.stop()

    async def cancel_outside(self) -> None:
        """What a failure elsewhere does: cancel everything around the host, clients included."""
        self.note_stop()
        self._outer.cancel()

    def note_stop(self) -> None:
        """From now on running runs may end cancelled, and queued ones stay queued."""
        self.ledger.stopped = True
        self.cover_everything("shutdown")

    def cover_everything(self, reason: str) -> None:
        """Every open run may end cancelled now."""
        for each in self.ledger.entries.values():
            self.ledger.cover(each, reason)

    async def rest(self, times: int = 1) -> None:
        """Do nothing for a few steps."""
        for _ in range(times):
            await trio.lowlevel.checkpoint()

    async def open_gate(self) -> None:
        """Let every `gate` prompt go on."""
        await trio.lowlevel.checkpoint()
        self.gate.set()

    async def pass_time(self, seconds: float) -> None:
        """Let time jump at some moment, whoever is busy."""
        await trio.lowlevel.checkpoint()
        clock: Any = trio.lowlevel.current_clock()
        clock.jump(seconds)

    async def all_ended(self, within_s: float = 100.0) -> None:
        """Wait until no run is open; longer than this is a stranded run (I6)."""
        with trio.move_on_after(within_s) as scope:
            while self.host.open_runs:
                await next(iter(self.host.open_runs.values())).ended.wait()
        if scope.cancelled_caught and not self.ledger.stopped:
            left = ", ".join(self.host.open_runs)
            self.ledger.wrong(f"I6: nobody ends {left}")


class _Noting:
    """A workspace that notes in the ledger what it accepts, in the step of acceptance."""

    def __init__(self, workspace: Workspace, world: Explored) -> None:
        self._workspace = workspace
        self._world = world

    def __getattr__(self, name: str) -> Any:
        return getattr(self._workspace, name)

    def submit(self, session: Session, request: PromptRequest, **named: Any) -> OpenRun:
        """See `Workspace.submit`."""
        w = self._world
        interrupts = request.if_busy == "interrupt"
        before = w.ledger.open_in(session.id) if interrupts else []
        closing = self._workspace.closing or w.host.stopping or self._workspace.closed.is_set()
        run = self._workspace.submit(session, request, **named)
        if closing:
            w.ledger.wrong(f"I7: {run.id} was accepted after closing had begun")
        if session.id in w.ledger.gone:
            w.ledger.ghosts.append(run)  # taken into memory: its commit must fail
        w.ledger.submitted(run, request, before)
        return run


def make_template() -> Template:
    """The database every schedule starts from."""
    forget_everything()
    made: list[Template] = []
    empty = Template(Tables(), WorkspaceId(""), ())

    async def main(choices: Choices) -> None:
        w = Explored(choices, empty)
        async with w.opened():
            workspace = await w.host.by_path(PATH)
            sessions = [(await create_session(workspace, "")).id for _ in range(SESSIONS)]
            made.append(Template(w.disk.tables, workspace.id, tuple(sessions)))

    run_schedule(main, Choices(Recorded({})))
    keep_so_far()
    return made[0]
