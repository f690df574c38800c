"""Crash points: what a kill after each commit leaves is started again, and that start checked.

What was promised is looked for in every state. A start is tried once per process for each state
that differs in something recovery reads. Recovery itself is killed after each of its commits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import attrs

from crush_trio.host.host import HostOptions
from crush_trio.protocol.ids import RunId
from crush_trio.protocol.runs import Outcome, RunState
from crush_trio.store.contract import RunRow, turn_of
from crush_trio.store.memory_rows import Tables
from tests.explore.checks import check_tables, events_of
from tests.explore.disk import State
from tests.explore.engine import Choices, Hang, run_schedule
from tests.explore.isolation import payload_of
from tests.explore.ledger import Fact
from tests.explore.strategies import Recorded
from tests.explore.world import Explored, Template

if TYPE_CHECKING:
    from tests.explore.runner import Tally
    from tests.explore.scenarios import Scenario

KNOWN_MAX = 200_000  # states remembered; then everything is forgotten and checked again


@attrs.define(eq=False)
class CrashChecker:
    """Starts a server on what a crash leaves, and judges what it makes of it."""

    template: Template
    _known: set[int] = attrs.field(factory=set, init=False)

    def check(self, w: Explored, scenario: Scenario, tally: Tally | None) -> list[str]:
        """Every state of a schedule that was not seen before."""
        wrongs: list[str] = []
        for state in w.disk.states:
            if tally is not None:
                tally.states += 1
            wrongs += judge_facts(w.ledger.facts[: state.told], state.tables)
            key = hash(_shape(state.tables))
            if key in self._known:
                continue
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            self._known.add(key)
            if tally is not None:
                tally.crashes += 1
            wrongs += (f"crash: {wrong}" for wrong in self._check(state, scenario))
            if wrongs:
                break
        return wrongs

    def _check(self, state: State, scenario: Scenario) -> Iterator[str]:
        found, halfway, wrongs = start_again(self.template, state.tables)
        yield from wrongs
        yield from self._judge(state.tables, found, scenario)
        for tables in halfway:
            again, _, wrongs = start_again(self.template, tables)
            yield from (f"killed in recovery: {wrong}" for wrong in wrongs)
            yield from self._judge(state.tables, again, scenario)
            if _ends(again) != _ends(found):
                yield f"I12: recovered {_ends(found)}, after a second kill {_ends(again)}"

    def _judge(self, before: Tables, after: Tables, scenario: Scenario) -> Iterator[str]:
        yield from check_tables(after, self.template.workspace_id, whole=scenario.whole)
        for run_id, entry in before.runs.rows.items():
            now = after.runs.rows.get(run_id)
            if now is None:
                yield f"I10: {run_id} was stored and is gone"
            else:
                above = before.runs.rows.get(entry.row.record.parent_run or RunId(""))
                yield from _judge_run(entry.row, now.row, above.row if above else None)
        yield from self._judge_order(before, after)

    def _judge_order(self, before: Tables, after: Tables) -> Iterator[str]:
        """I5: what had waited goes on in its order."""
        begun: dict[str, list[float]] = {}
        last = before.counters_of(self.template.workspace_id).last_seq
        for event in events_of(after, self.template.workspace_id):
            if event.seq <= last or event.kind != "run":
                continue
            record = payload_of(event.data).payload
            if record.state is RunState.RUNNING:
                row = before.runs.rows[record.id].row
                begun.setdefault(row.record.session_id, []).append(turn_of(row))
        for session_id, turns in begun.items():
            if list(dict.fromkeys(turns)) != sorted(set(turns)):
                yield f"I5: what waited in {session_id} began in the order {turns}"


def start_again(template: Template, tables: Tables) -> tuple[Tables, list[Tables], list[str]]:
    """The next server's life: the tables it leaves, those in the middle of its recovery, and
    what went wrong."""
    w: list[Explored] = []
    halfway: list[Tables] = []

    async def main(choices: Choices) -> None:
        made = Explored(choices, template, HostOptions(), keep_states=True, revived=True)
        w.append(made)
        async with made.opened(tables):
            # Recovery is over when the host is open: what it has committed so far is all
            # that a second kill could find, but for the last, which is the whole of it.
            owed = {
                run_id
                for run_id, entry in tables.runs.rows.items()
                if entry.row.record.state is not RunState.FINISHED
            }
            for kept in made.disk.states[:-1]:
                ended = {i for i in owed if kept.tables.runs.rows[i].row.record.outcome}
                if ended:
                    halfway.append(kept.tables)

    try:
        run_schedule(main, Choices(Recorded({})))
    except Hang as exc:
        return tables, [], [f"I9: the next start hangs: {exc}"]
    except Exception as exc:
        return tables, [], [f"I9: the next start fails: {exc!r}"]
    return w[0].disk.tables, halfway, w[0].ledger.wrongs


def _judge_run(was: RunRow, now: RunRow, above: RunRow | None) -> Iterator[str]:
    """``above``: the run that a sub-agent worked for, as it was."""
    run_id, record = was.record.id, now.record
    if was.record.state is RunState.FINISHED:
        if record != was.record:
            yield f"G2: {run_id} had ended and was changed by the next start"
    elif record.state is not RunState.FINISHED:
        yield f"I9: {run_id} is left {record.state}"
    elif was.record.cancelled_by is not None or (above and above.record.cancelled_by):
        if record.outcome is not Outcome.CANCELLED:
            yield f"G2: {run_id} was cancelled and ended {record.outcome}"
    elif was.record.state is RunState.RUNNING or above:
        if record.outcome is not Outcome.LOST:
            yield f"G2: {run_id} was running and ended {record.outcome}"
    elif record.outcome is not Outcome.COMPLETED:
        yield f"G2: {run_id} was queued and ended {record.outcome}"


def judge_facts(facts: Iterable[Fact], stored: Tables) -> Iterator[str]:
    """What somebody outside knows must be stored at every moment."""
    last = max((counters.last_seq for counters in stored.counters.rows.values()), default=0)
    for kind, subject, more in facts:
        row = stored.runs.rows.get(RunId(subject))
        record = None if row is None else row.row.record
        if kind == "seen" and int(more) > last:
            yield f"G8: event {more} was seen and is not stored"
        elif kind == "accepted" and record is None:
            yield f"I10: {subject} was promised and is not stored"
        elif kind == "ended" and (record is None or record.outcome != more):
            yield f"G2: {subject} was seen to end {more} and is stored {record and record.outcome}"
        elif kind == "cancelled" and record is not None:
            if record.cancelled_by is None and record.outcome is not Outcome.FAILED:
                yield f"G2: the cancel of {subject} was promised and is not stored"
        elif kind == "gone" and subject in stored.sessions.rows:
            yield f"G2: session {subject} was deleted and is there"


def _ends(tables: Tables) -> dict[str, str]:
    """How every run ended."""
    return {run_id: str(entry.row.record.outcome) for run_id, entry in tables.runs.rows.items()}


def _shape(tables: Tables) -> tuple[object, ...]:
    """Everything that recovery reads, without what only names it."""
    runs = tuple(
        (
            run_id,
            entry.row.record.state,
            entry.row.record.outcome,
            entry.row.record.accept_seq,
            entry.row.record.cancelled_by is None,
            entry.row.record.deleted,
            entry.row.turn,
            entry.row.record.kind,
            len(entry.row.processes),
        )
        for run_id, entry in sorted(tables.runs.rows.items())
    )
    messages = tuple(
        sorted(
            (
                row.message.session_id,
                row.accept_seq,
                row.ordinal,
                row.message.role,
                str(row.message.run_id),
                tuple(_part(part) for part in row.message.parts),
            )
            for row in tables.messages.rows.values()
        )
    )
    asks = tuple(sorted((row.run_id, str(row.ending)) for row in tables.asks.rows.values()))
    return runs, messages, asks, tuple(tables.sessions.rows)


def _part(part: object) -> str:
    name = type(part).__name__
    return name + str(getattr(part, "finished", "")) + str(getattr(part, "reason", ""))
