"""A session's title: asked beside the first run, in nobody's way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from crush_trio import limits
from crush_trio.agent.ports import (
    Emit,
    Model,
    ModelError,
    ModelInfo,
    ModelRequest,
    ReasoningDelta,
    StepEnd,
    StreamReset,
    TextDelta,
)
from crush_trio.host.session_life import create_session, delete_session
from crush_trio.host.titles import title_of
from crush_trio.protocol.errors import StoreError
from crush_trio.protocol.messages import TextPart
from crush_trio.protocol.requests import Attachment
from crush_trio.protocol.runs import Outcome, Usage
from crush_trio.protocol.sessions import Session
from crush_trio.store.contract import Transaction
from tests.host import fakes
from tests.host.fakes import Act, FakeKit, FakeModel
from tests.host.world import ME, World, payload, quiet

LONG = "Count the marmots in the valley,\n and tell me which of them sleep"
FIRST_WORDS = "Count the marmots in the valley, and tell me which"


async def name(request: ModelRequest, emit: Emit) -> StepEnd:
    """Take a second to find a name."""
    await trio.sleep(1)
    emit(ReasoningDelta("hm"))
    emit(TextDelta("Sleeping\n"))
    emit(TextDelta("marmots"))
    return StepEnd("end_turn", Usage(100, 4, 20))


@attrs.define(eq=False)
class Namer:
    """The small model that gives names, by ``act``."""

    act: Act
    requests: list[ModelRequest] = attrs.field(factory=list)
    info: ModelInfo = attrs.field(
        factory=lambda: ModelInfo(
            "fake",
            "small",
            cost_per_1m_in=10.0,
            cost_per_1m_out=100.0,
            cost_per_1m_out_cached=1.0,
        )
    )

    async def stream(self, request: ModelRequest, emit: Emit) -> StepEnd:
        """Do as told."""
        self.requests.append(request)
        return await self.act(request, emit)


@attrs.define(eq=False)
class Offering(FakeModel):
    """A fake that offers titles."""

    namer: Namer = attrs.field(factory=lambda: Namer(name))

    def titler(self) -> Model | None:
        """The small one."""
        return self.namer


@pytest.fixture
async def world(clock: MockClock, tmp_path: Path) -> AsyncIterator[World]:
    """A world whose model offers titles."""
    made = World(tmp_path, FakeKit(Offering()))
    async with made.opened():
        await made.start()
        yield made
        await made.check()


def namer(world: World) -> Namer:
    model = world.kit.fake
    assert isinstance(model, Offering)
    return model.namer


async def session(world: World) -> Session:
    found = await world.store.session(world.session.id)
    assert found is not None
    return found[1]


async def test_the_first_prompt_names_the_session_beside_its_run(
    clock: MockClock, world: World
) -> None:
    """CW 5.12, 5.11: the run has ended by then; tokens and cost are added, nothing else changes."""
    run = world.submit(LONG)
    (record,) = await world.ended(run)
    assert (record.outcome, trio.current_time()) == (Outcome.COMPLETED, 0)
    before = await session(world)
    assert before.title == FIRST_WORDS
    assert (before.prompt_tokens, before.completion_tokens) == (10, 5)
    await trio.sleep(1.001)
    after = await session(world)
    assert after == attrs.evolve(
        before,
        title="Sleeping marmots",
        prompt_tokens=10 + 120,
        completion_tokens=5 + 4,
        cost=after.cost,
    )
    assert after.cost == pytest.approx(before.cost + (100 * 10 + 4 * 100 + 20) / 1e6)
    last = (await world.events())[-1]
    assert (last.kind, last.run_id, payload(last)["title"]) == ("session", None, "Sleeping marmots")
    assert (await world.record(run.id)).last_seq == last.seq - 1
    (asked,) = namer(world).requests
    assert [m.parts for m in asked.messages] == [(TextPart(LONG),)]
    assert (asked.max_output_tokens, asked.tools) == (limits.TITLE_OUTPUT_TOKENS, ())


async def test_only_the_first_prompt_with_text_asks_for_a_title(
    clock: MockClock, world: World
) -> None:
    await world.ended(world.submit("one"))
    await world.ended(world.submit("two"))
    await trio.sleep(2)
    await world.ended(world.submit("three"))
    assert len(namer(world).requests) == 1


async def test_a_name_that_was_not_found_is_not_looked_for_again(
    clock: MockClock, world: World
) -> None:
    """CW 5.12: also when the next prompt is the same, and the title stands for both."""
    namer(world).act = world.kit.fake.act_for_title = failing
    for _ in range(2):
        await world.ended(world.submit("one"))
        await quiet()
    assert len(namer(world).requests) == 1


async def test_a_session_that_has_a_name_is_not_asked_about(clock: MockClock, world: World) -> None:
    record = await create_session(world.workspace, "Mine")
    mine = await world.workspace.session(record.id)
    await world.ended(world.submit("hello", session=mine))
    await trio.sleep(2)
    assert namer(world).requests == []


@pytest.mark.parametrize("why", ["none", "planner"])
async def test_a_model_without_titles_leaves_the_first_words(
    clock: MockClock, tmp_path: Path, why: str
) -> None:
    """CW 5.12: as the built-in planner does."""
    model: FakeModel = FakeModel() if why == "none" else Offering()
    model.info = attrs.evolve(model.info, is_language_model=why == "none")
    world = World(tmp_path, FakeKit(model))
    async with world.opened():
        await world.start()
        await world.ended(world.submit(LONG))
        await trio.sleep(2)
        assert (await session(world)).title == FIRST_WORDS
        assert why == "none" or namer(world).requests == []


def rename(world: World) -> Awaitable[Any]:
    def write(tx: Transaction) -> None:
        found = tx.session(world.session.id)
        assert found is not None
        changed = attrs.evolve(found, title="Mine", summary_message_id="m")
        tx.put_session(changed)
        tx.emit("session", "updated", changed, session_id=found.id)

    return world.store.commit_nowait(world.workspace.id, write).wait()


async def test_a_person_who_names_it_meanwhile_wins(clock: MockClock, world: World) -> None:
    """CW 12.2: what others have written meanwhile stays; the cost is added all the same."""
    await world.ended(world.submit(LONG))
    await rename(world)
    before = await session(world)
    await trio.sleep(2)
    after = await session(world)
    assert (after.title, after.summary_message_id) == ("Mine", "m")
    assert after.cost > before.cost


async def test_a_session_that_is_deleted_meanwhile_stays_deleted(
    clock: MockClock, world: World
) -> None:
    await world.ended(world.submit(LONG))
    await delete_session(world.workspace, world.session.id, ME)
    before = await world.events()
    await trio.sleep(2)
    assert await world.store.session(world.session.id) is None
    assert await world.events() == before


async def failing(request: ModelRequest, emit: Emit) -> StepEnd:
    raise ModelError("overloaded", "too busy")


async def broken(request: ModelRequest, emit: Emit) -> StepEnd:
    raise KeyError("oops")


async def empty(request: ModelRequest, emit: Emit) -> StepEnd:
    emit(TextDelta("Half a na"))
    emit(StreamReset(1, 3, 0.0, "529"))
    emit(TextDelta(" <think>what"))
    return StepEnd("end_turn")


@pytest.mark.parametrize("act", [failing, broken, empty, fakes.hang])
async def test_without_an_answer_the_first_words_stay(
    clock: MockClock, world: World, act: Act
) -> None:
    """CW 5.12: also when none comes for `limits.TITLE_S`; then the task is gone."""
    namer(world).act = world.kit.fake.act_for_title = act
    await world.ended(world.submit(LONG))
    await trio.sleep(limits.TITLE_S + 0.1)
    assert (await session(world)).title == FIRST_WORDS
    assert len(world.workspace.home.nursery.child_tasks) == 0


async def test_a_store_that_cannot_take_it_costs_only_the_title(
    clock: MockClock, world: World
) -> None:
    await world.ended(world.submit(LONG))
    await trio.sleep(0.9)
    world.store.fail_next(StoreError("disk_full", "no room"))
    await trio.sleep(1)
    assert (await session(world)).title == FIRST_WORDS
    await world.ended(world.submit("and now"))


async def test_a_cancelled_run_takes_its_title_along(clock: MockClock, world: World) -> None:
    """G4: in the window of title generation; a later run's cancel does not."""
    namer(world).act = fakes.stubborn
    world.kit.fake.acts["hang"] = fakes.hang
    run = world.submit("hang")
    await world.kit.fake.asked.wait()
    await quiet()
    (asked,) = namer(world).requests
    assert asked.run_id == run.id
    began = trio.current_time()
    world.session.cancel(ME)
    (record,) = await world.ended(run)
    assert record.outcome is Outcome.CANCELLED
    assert trio.current_time() == pytest.approx(began, abs=0.01)
    await trio.sleep(2.1)
    assert len(world.workspace.home.nursery.child_tasks) == 0


async def test_a_title_is_none_of_a_later_runs_business(clock: MockClock, world: World) -> None:
    world.kit.fake.acts["hang"] = fakes.hang
    first, later = world.submit("hello"), world.submit("hang")
    await world.ended(first)
    await quiet()
    world.session.cancel(ME)
    await world.ended(later)
    await trio.sleep(2)
    assert (await session(world)).title == "Sleeping marmots"


async def test_a_shutdown_does_not_wait_for_a_title(clock: MockClock, tmp_path: Path) -> None:
    """G11."""
    world = World(tmp_path, FakeKit(Offering(namer=Namer(fakes.hang))))
    async with world.opened():
        await world.start()
        await world.ended(world.submit("hello"))
        assert len(namer(world).requests) == 1
    assert trio.current_time() == 0


async def test_an_attachment_is_not_shown_to_name_it(clock: MockClock, world: World) -> None:
    attached = Attachment("QQ==", "a.txt", "a.txt", "text/plain")
    await world.ended(world.submit("x" * 5_000, attachments=(attached,)))
    await trio.sleep(2)
    (asked,) = namer(world).requests
    assert asked.messages[0].parts == (TextPart("x" * limits.TITLE_PROMPT_CHARS),)


@pytest.mark.parametrize("act", [failing, empty, fakes.hang])
async def test_what_the_small_model_does_not_find_the_large_one_is_asked(
    clock: MockClock, world: World, act: Act
) -> None:
    """CW 5.12: and what both have used is added; a silent one has half of the time."""
    namer(world).act = act
    large = world.kit.fake
    large.act_for_title = name
    large.info = attrs.evolve(large.info, can_reason=True)
    await world.ended(world.submit(LONG))
    before = await session(world)
    await trio.sleep(limits.TITLE_S / 2 + 1.1)
    after = await session(world)
    assert after.title == "Sleeping marmots"
    used = after.prompt_tokens - before.prompt_tokens
    assert (used > 120) if act is empty else (used == 120)
    asked = [request for request in large.requests if request.title]
    assert [request.max_output_tokens for request in asked] == [None], "it thinks first"
    assert namer(world).requests[0].max_output_tokens == limits.TITLE_OUTPUT_TOKENS


async def test_what_names_itself_is_not_asked_twice(clock: MockClock, world: World) -> None:
    """As a script does: its own steps are no titles."""
    namer(world).act = failing
    namer(world).info = world.kit.fake.info
    await world.ended(world.submit(LONG))
    await trio.sleep(limits.TITLE_S)
    assert [request.title for request in world.kit.fake.requests] == [False]
    assert (await session(world)).title == FIRST_WORDS


ANSWERS = [
    ("Marmots", "Marmots"),
    ("  Marmots \r\n and\tothers ", "Marmots and others"),
    ("<think>They want\na name</think>\n\nMarmots", "Marmots"),
    ("<THINKING>x</THINKING> Marmots <think>y</think>asleep", "Marmots asleep"),
    ("they want a name</think> Marmots", "Marmots"),
    ("Marmots <think>never ended", "Marmots"),
    ("<think>only thoughts</think>", ""),
    ("\x1b[31mMarmots\x07", "[31mMarmots"),
    ("\ud800 Marmots", "? Marmots"),
    ("x " * 100, ("x " * 50).strip()),
    ("", ""),
]


@pytest.mark.parametrize(("answer", "title"), ANSWERS)
def test_an_answer_becomes_one_plain_line(answer: str, title: str) -> None:
    """CW 5.12."""
    assert title_of(answer) == title
