"""What clients do in a schedule: one small function each, found by its name.

A scenario starts clients with ``w.go`` and may draw what they do with ``w.choices.draw``; it does
not wait for them. Everything that must hold is checked afterwards for all scenarios alike.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs

from crush_trio.host.host import HostOptions
from crush_trio.protocol.errors import StoreError
from crush_trio.protocol.runs import Limits
from tests.explore.followers import Follower
from tests.explore.world import Explored

Script = Callable[[Explored], Awaitable[None]]


@attrs.frozen
class Scenario:
    """A script with what it needs.

    ``whole``: it deletes nothing, so the journal has no gap. ``crash``: its commits are crash
    points.
    """

    name: str
    script: Script
    options: HostOptions
    whole: bool = True
    crash: bool = True


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    options: HostOptions | None = None, *, whole: bool = True, crash: bool = True
) -> Callable[[Script], Script]:
    """Make a script findable under its function's name."""

    def add(script: Script) -> Script:
        name = script.__name__
        SCENARIOS[name] = Scenario(name, script, options or HostOptions(), whole, crash)
        return script

    return add


# --- accepting and cancelling -------------------------------------------------------------


@scenario()
async def accept_cancel(w: Explored) -> None:
    """Prompts on both sides of two cancels; the later ones must live."""
    w.go(w.post, "say a")
    w.go(w.cancel, at=w.some())
    w.go(w.post, "tool b", at=w.some())
    w.go(w.cancel, at=w.some())
    w.go(w.post, "say c", session=w.choices.draw(2))


@scenario()
async def cancel_windows(w: Explored) -> None:
    """One run of any kind, cancelled anywhere."""
    kind = ("say", "hang", "tool", "stay", "broken", "retry", "stubborn", "rude", "deny")
    w.go(w.post, f"{kind[w.choices.draw(len(kind))]} a", run_id="a")
    w.go(w.cancel, "a" if w.choices.draw(2) else None, at=w.some())
    w.go(w.post, "say b", at=w.some())


@scenario()
async def queue_cancel(w: Explored) -> None:
    """A running run and waiting ones; one of them, the waiting ones, or all are cancelled."""
    for name, kind in zip("abcd", ("hang", "say", "tool", "say"), strict=True):
        w.go(w.post, f"{kind} {name}", run_id=name)
    w.go(w.cancel, "abcd"[w.choices.draw(4)], at=w.some())
    w.go(w.clear, at=w.some())
    w.go(w.cancel, at=w.some())


@scenario()
async def policies(w: Explored) -> None:
    """Every policy against every other."""
    for policy in ("enqueue", "steer", "interrupt", "reject"):
        w.go(w.post, f"{('say', 'tool')[w.choices.draw(2)]} {policy}", policy)
    w.go(w.post, "hang last", "enqueue")
    w.go(w.post, "say interrupts", "interrupt", at=w.some())


@scenario()
async def hand_over(w: Explored) -> None:
    """A run that ends in any way, with others behind it."""
    kinds = ("say", "broken", "buggy", "cut", "deny", "refuse", "break", "hang", "rude")
    w.go(w.post, f"{kinds[w.choices.draw(len(kinds))]} a", run_id="a")
    w.go(w.post, f"{kinds[w.choices.draw(len(kinds))]} b")
    w.go(w.post, "say c", at=w.some())
    w.go(w.cancel, "a", at=w.some())


@scenario()
async def many_prompts(w: Explored) -> None:
    """More tasks than anybody can follow, in two sessions."""
    kinds = ("say", "tool", "broken", "gate", "retry")
    for number in range(6):
        kind = kinds[w.choices.draw(len(kinds))]
        w.go(w.post, f"{kind} {number}", ("enqueue", "steer")[number % 2], session=number % 2)
    w.go(w.cancel, None, w.choices.draw(2), at=w.some())
    w.go(w.open_gate, at=w.some())


# --- sub-agents ---------------------------------------------------------------------------

_CALLS = ("call", "callbroken", "callhang", "callstubborn", "callretry")


@scenario()
async def sub_agent_cancel(w: Explored) -> None:
    """A run with sub-agents, and one behind it; the run, a sub-agent or all of it is cancelled."""
    kind = _CALLS[w.choices.draw(len(_CALLS))]
    w.go(w.post, f"{kind} {('once', 'twice')[w.choices.draw(2)]}", run_id="a")
    w.go(w.post, "say b", ("steer", "interrupt")[w.choices.draw(2)], at=w.some())
    w.go(w.cancel_sub_agent, at=w.some(30))
    w.go(w.cancel, ("a", None)[w.choices.draw(2)], at=w.some(30))


@scenario(whole=False)
async def sub_agent_end(w: Explored) -> None:
    """What a run belongs to ends while a sub-agent of it is at work."""
    kind = _CALLS[w.choices.draw(len(_CALLS))]
    w.go(w.post, f"{kind} once")
    w.go((w.delete, w.close, w.stop, w.cancel_outside)[w.choices.draw(4)], at=w.some(30))
    w.go(w.post, "say b", session=1)


# --- steering and editing -----------------------------------------------------------------


@scenario()
async def steer_cancel(w: Explored) -> None:
    """Prompts are folded into a run with steps to come, while it is cancelled."""
    w.go(w.post, "tool a", run_id="a")
    w.go(w.post, "say b", "steer", run_id="b")
    w.go(w.post, ("say c", "broken c")[w.choices.draw(2)], "steer")
    w.go(w.cancel, ("a", "b", None)[w.choices.draw(3)], at=w.some())
    w.go(w.post, "say d", "steer", at=w.some())


@scenario()
async def steer_other(w: Explored) -> None:
    """Prompts that steer but name limits of their own get a turn of their own."""
    w.go(w.post, "tool a")
    w.go(w.post, "say b", "steer", limits=Limits(max_steps=9))
    w.go(w.post, "say c", "steer")
    w.go(w.post, "tool d", "interrupt", at=w.some())


@scenario()
async def editing(w: Explored) -> None:
    """Waiting runs are moved and edited while the queue moves on."""
    w.go(w.post, "gate a", run_id="a")
    for name in "bcd":
        w.go(w.post, f"say {name}", run_id=name)
    w.go(w.move, "d", 0, at=w.some())
    w.go(w.move, "b", 2, "say b again", at=w.some())
    w.go(w.cancel, "c", at=w.some())
    w.go(w.open_gate, at=w.some())


# --- requests -----------------------------------------------------------------------------


@scenario()
async def same_id(w: Explored) -> None:
    """One request sent three times, another one with its id, and a cancel."""
    for _ in range(3):
        w.go(w.post, "say a", run_id="a", at=w.some(12))
    w.go(w.post, "say other", run_id="a", at=w.some(12))
    w.go(w.cancel, "a" if w.choices.draw(2) else None, at=w.some(12))
    w.go(w.cancel, at=w.some(12))
    w.go(w.post, "say b", at=w.some())


@scenario()
async def lost_clients(w: Explored) -> None:
    """Clients hang up at any moment; their runs go on."""
    for name in "abc":
        w.go(w.hang_up, f"{('say', 'tool')[w.choices.draw(2)]} {name}")
    w.go(w.post, "say d")
    w.go(w.cancel, at=w.some())


@scenario()
async def disconnect(w: Explored) -> None:
    """Runs that end with their client's stream, which comes back or not, in time or not."""
    w.go(_stream_once, w, "c", 2)
    w.go(_stream_once, w, "c", w.choices.draw(8))
    w.go(w.post, "hang a", client_id="c", on_disconnect="cancel")
    w.go(w.post, "say b", client_id="c")
    w.go(w.pass_time, 2.0, at=w.some())
    w.go(w.pass_time, 2.0, at=w.some())


async def _stream_once(w: Explored, client_id: str, steps: int) -> None:
    workspace = await w.workspace()
    with w.host.subscribing(workspace, client_id):
        await w.rest(steps)
    for each in w.ledger.entries.values():
        if each.request.on_disconnect == "cancel":
            each.covered.append("disconnect")


# --- subscribers and people -----------------------------------------------------------------


@scenario()
async def subscribers(w: Explored) -> None:
    """They join, lag, leave and come back while runs go on; one only follows a session."""
    hops = (1 + w.choices.draw(3), 1 + w.choices.draw(5))
    w.watch(Follower(w, hops=hops, lag=w.choices.draw(3)).follow)
    w.watch(Follower(w, cursor=None, session=w.choices.draw(2)).follow)
    w.watch(Follower(w, cursor=1, detail="snapshot", hops=hops[:1]).follow)
    w.go(w.post, ("tool a", "retry a")[w.choices.draw(2)])
    w.go(w.post, "say b", "steer", session=1)
    w.go(w.cancel, at=w.some())


@scenario()
async def late_subscriber(w: Explored) -> None:
    """One joins while much is being written, and one when the server stops."""
    w.go(w.post, "tool a")
    w.go(w.post, "hang b", session=1)
    w.go(_follow_later, w, at=w.some())
    w.go(w.cancel, at=w.some())
    w.go(w.stop, at=w.some())


async def _follow_later(w: Explored) -> None:
    w.watch(Follower(w, cursor=(0, None)[w.choices.draw(2)], lag=w.choices.draw(4)).follow)


@scenario()
async def permission(w: Explored) -> None:
    """Two runs ask a person; answers, a cancel and time go for them."""
    w.go(w.post, "ask a", permission_mode="ask")
    w.go(w.post, "ask b", session=1, permission_mode="ask")
    for action in ("allow", "deny", ("allow", "deny")[w.choices.draw(2)]):
        w.go(w.answer, action, at=w.some())
    w.go(w.cancel, at=w.some())
    w.go(w.stop, at=w.some(60))


# --- other kinds of runs ------------------------------------------------------------------


@scenario()
async def shell_queue(w: Explored) -> None:
    """Commands and prompts in one queue, with a cancel."""
    w.go(w.post, ("echo a", "stay a")[w.choices.draw(2)], kind="shell")
    w.go(w.post, "tool b", at=w.some())
    w.go(w.post, "echo c", ("enqueue", "interrupt")[w.choices.draw(2)], kind="shell", at=w.some())
    w.go(w.cancel, at=w.some())


@scenario()
async def summarise_queue(w: Explored) -> None:
    """A summary somebody asked for, among prompts and a cancel."""
    w.go(w.post, "tool a")
    w.go(w.post, "", kind="summarize", at=w.some())
    w.go(w.post, "say b", ("enqueue", "steer", "interrupt")[w.choices.draw(3)], at=w.some())
    w.go(w.cancel, at=w.some(30))


@scenario()
async def compaction(w: Explored) -> None:
    """A run whose window is full goes on from a summary, under steering and a cancel."""
    w.fail_step = w.choices.draw(12)
    w.go(w.post, "full a")
    w.go(w.post, "say b", ("steer", "enqueue")[w.choices.draw(2)], at=w.some())
    w.go(w.cancel, at=w.some(24))
    w.go(w.post, "say c", at=w.some(24))


@scenario()
async def titles(w: Explored) -> None:
    """Conversations get names beside their first runs, while they end and are stopped."""
    w.titles = True
    w.go(w.post, ("say a", "hang a")[w.choices.draw(2)])
    w.go(w.post, "tool b", session=1)
    w.go(w.cancel, at=w.some())
    w.go(w.close, at=w.some(30))


# --- the end of things --------------------------------------------------------------------


@scenario(whole=False)
async def delete_session(w: Explored) -> None:
    """A session is deleted, twice, under prompts and a cancel."""
    w.go(w.post, ("say a", "hang a")[w.choices.draw(2)])
    w.go(w.delete, at=w.some())
    w.go(w.post, "tool b", at=w.some())
    w.go(w.delete, at=w.some())
    w.go(w.cancel, at=w.some())
    w.go(w.post, "say c", session=1)


@scenario()
async def close_workspace(w: Explored) -> None:
    """The workspace is closed for good under prompts; those that come later open it again."""
    w.go(w.post, ("say a", "stay a")[w.choices.draw(2)])
    w.go(w.post, "say b", at=w.some())
    w.go(w.close, at=w.some())
    w.go(w.post, "tool c", session=1)
    w.go(w.cancel, at=w.some())


@scenario(whole=False, crash=False)
async def purge_workspace(w: Explored) -> None:
    """The workspace is deleted under prompts."""
    w.go(w.post, "say a")
    w.go(w.purge, at=w.some())
    w.go(w.post, "tool b", "interrupt", at=w.some())
    w.go(w.close, at=w.some())
    w.go(w.purge, at=w.some())


@scenario(HostOptions(idle_timeout_s=1.0))
async def idle_close(w: Explored) -> None:
    """The workspace closes because nobody uses it, just when somebody does."""
    w.go(w.post, "say a")
    w.go(w.pass_time, 1.1, at=w.some())
    w.go(w.post, "tool b", session=1)
    w.go(w.pass_time, 1.1, at=w.some())
    w.go(w.post, "say c", at=w.some())


@scenario()
async def shutdown(w: Explored) -> None:
    """The server stops at any moment."""
    kinds = ("say", "tool", "hang", "stay", "broken")
    for name in "abc":
        w.go(w.post, f"{kinds[w.choices.draw(len(kinds))]} {name}", run_id=name)
    w.go(w.post, "say d", "steer", session=1)
    w.go(w.cancel, "b", at=w.some())
    w.go(w.stop, at=w.some())


@scenario()
async def outer_cancel(w: Explored) -> None:
    """Everything around the host is cancelled at any moment."""
    kinds = ("say", "tool", "hang", "stay", "stubborn", "rude")
    for name in "abc":
        w.go(w.post, f"{kinds[w.choices.draw(len(kinds))]} {name}")
    w.go(w.cancel, at=w.some())
    w.go(w.cancel_outside, at=w.some())


# --- a bad disk and bad tools -------------------------------------------------------------


@scenario()
async def disk_full(w: Explored) -> None:
    """Two commits fail; the rest goes on."""
    w.ledger.faults.add("disk_full")
    w.ledger.slow = True
    for _ in range(2):
        w.disk.failing[w.choices.draw(24)] = StoreError("disk_full", "no room")
    w.go(w.post, "tool a")
    w.go(w.post, "say b", ("steer", "interrupt")[w.choices.draw(2)])
    w.go(w.cancel, at=w.some())
    w.go(w.post, "say c", at=w.some())


@scenario()
async def store_failed(w: Explored) -> None:
    """A commit fails for good; the server stops, and the next start decides."""
    w.ledger.faults.add("store_failed")
    w.ledger.slow = True
    w.disk.failing[w.choices.draw(16)] = StoreError("store_failed", "broken")
    w.go(w.post, "tool a")
    w.go(w.post, "say b", "steer")
    w.go(w.cancel, at=w.some())
    w.go(w.post, "say c", session=1)


@scenario()
async def slow_disk(w: Explored) -> None:
    """The disk holds at any moment, and goes on."""
    w.go(_hold, w, at=w.some())
    w.go(w.post, "tool a")
    w.go(w.post, "say b", "steer")
    w.go(w.cancel, at=w.some())
    w.go(w.post, "say c", "interrupt", at=w.some())


async def _hold(w: Explored) -> None:
    await w.rest(1)
    w.disk.pause()
    await w.rest(6)
    w.disk.resume()


@scenario()
async def bad_step(w: Explored) -> None:
    """A model or a tool breaks at any of its awaits."""
    w.fail_step = 1 + w.choices.draw(10)
    w.go(w.post, "tool a")
    w.go(w.post, "say b", "steer")
    w.go(w.post, "deny c")
    w.go(w.cancel, at=w.some())
