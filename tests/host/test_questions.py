"""A run that waits for a person's answers (CW 6.2; I25, I27, I28)."""

from __future__ import annotations

from typing import Any

import attrs
import orjson
import pytest
import trio
from trio.testing import MockClock

from crush_trio import limits
from crush_trio.agent.ports import (
    Emit,
    ModelRequest,
    StepEnd,
    TextDelta,
    ToolCall,
    ToolCallEnd,
    ToolCallStart,
)
from crush_trio.host.asks.questions import answer_questions, cancel_questions
from crush_trio.host.runs.open_run import OpenRun
from crush_trio.protocol.errors import Refused
from crush_trio.protocol.questions import QuestionAnswer, QuestionRequest, QuestionResponse
from crush_trio.protocol.requests import Resolution
from crush_trio.protocol.runs import Outcome
from crush_trio.store.contract import AskRow
from crush_trio.tools.arguments import ToolProblem
from crush_trio.tools.question import QuestionTool, answers_text, read_questions
from tests.host.asker import ANA, Asker
from tests.host.fakes import Act
from tests.host.world import ME, World, next_start, payload

FORMAT: dict[str, Any] = {
    "type": "single_choice",
    "question": "Which format?",
    "description": "Of the export.",
    "choices": [{"id": "json", "label": "JSON"}, {"label": "CSV", "description": "No nesting"}],
}
SURE: dict[str, Any] = {"type": "yes_no", "question": "Sure?", "description": "It is a lot."}


def asking(*questions: dict[str, Any]) -> Act:
    """Ask these in the first step; afterwards answer."""

    async def act(request: ModelRequest, emit: Emit) -> StepEnd:
        if request.step > 1 or "question" not in {tool.name for tool in request.tools}:
            emit(TextDelta("done"))
            return StepEnd("end_turn")
        emit(ToolCallStart("call-q", "question"))
        emit(ToolCallEnd("call-q", orjson.dumps({"questions": list(questions)}).decode()))
        return StepEnd("tool_use")

    return act


@pytest.fixture
async def asker(world: World) -> Asker:
    """A world whose model asks."""
    made = Asker(world)
    world.kit.tools = (*world.kit.tools, QuestionTool())
    world.kit.fake.acts["format"] = asking(FORMAT)
    world.kit.fake.acts["sure"] = asking(SURE)
    world.kit.fake.acts["several"] = asking(FORMAT, SURE)
    return made


def batch_of(row: AskRow) -> QuestionRequest:
    """The questions of a row."""
    assert isinstance(row.request, QuestionRequest)
    return row.request


async def answer(asker: Asker, row: AskRow, *, batch: str | None = None, **said: Any) -> Resolution:
    """Answer the first question of a batch."""
    first = batch_of(row).questions[0]
    responses = (QuestionResponse(first.id, **said),)
    given = QuestionAnswer(row.id if batch is None else batch, responses)
    return await answer_questions(asker.waiting, given, ANA)


async def notified(world: World) -> list[str]:
    """The batches of which everybody was told that they had ended."""
    events = [e for e in await world.events() if e.kind == "question_batch_notification"]
    return [payload(e)["batch_id"] for e in events]


async def test_answers_go_to_the_model_and_the_batch_ends_once(world: World, asker: Asker) -> None:
    """I25, I27: stored with its event; one notification; a second answer is told who answered."""
    run, row = await asker.ask("format")
    assert (await world.record(run.id)).waiting_on == "question"
    [event] = [e for e in await world.events() if e.kind == "question_batch_request"]
    assert payload(event)["id"] == row.id
    assert payload(event)["questions"][0]["choices"][0] == {"id": "json", "label": "JSON"}
    given = await answer(asker, row, selected_ids=("json",), notes={"_question": "indented"})
    assert given == Resolution(True, "answered", ANA)
    assert (await asker.ended(run)).outcome is Outcome.COMPLETED
    assert await asker.results() == ["User selected: [JSON]\nUser note: indented"]
    assert await notified(world) == [row.id]
    late = await cancel_questions(asker.waiting, row.id, "somebody")
    assert (late.resolved, late.ending, late.decided_by) == (False, "answered", ANA)


async def test_a_cancelled_question_stops_the_turn(world: World, asker: Asker) -> None:
    run, row = await asker.ask("format")
    assert (await cancel_questions(asker.waiting, "", ANA)).ending == "cancelled"
    record = await asker.ended(run)
    assert (record.outcome, record.steps, record.denied) == (Outcome.COMPLETED, 1, 0)
    assert await asker.results() == ["User cancelled this question"]
    assert await notified(world) == [row.id]
    assert await cancel_questions(asker.waiting, "", ANA) == Resolution(False)


async def test_nobodys_answer_is_a_cancellation_after_ten_minutes(
    clock: MockClock, world: World, asker: Asker
) -> None:
    run, row = await asker.ask("format")
    began = trio.current_time()
    await world.ended(run)
    assert trio.current_time() - began == pytest.approx(limits.ASK_DEADLINE_S, abs=1)
    assert await asker.results() == ["Nobody answered within 10 minutes"]
    assert (await answer(asker, row)).ending == "expired"


async def test_the_model_may_go_on_without_answers_if_that_is_configured(
    clock: MockClock, world: World, asker: Asker
) -> None:
    """T26: nobody's answer is then no end of the turn; a person's cancel still is."""
    world.kit.deny_stops = False
    world.kit.ask_deadline_s = 90
    record = (await world.ended(world.submit("format")))[0]
    assert (record.outcome, record.text) == (Outcome.COMPLETED, "done")
    assert await asker.results() == ["Nobody answered within 90 seconds"]
    run, row = await asker.ask("format")
    assert (await cancel_questions(asker.waiting, row.id, ANA)).ending == "cancelled"
    assert (await asker.ended(run)).text == ""


async def test_the_runs_cancel_withdraws_its_questions(world: World, asker: Asker) -> None:
    """G4, R69."""
    run, row = await asker.ask("format")
    world.session.cancel(ME)
    assert (await answer(asker, row)).ending == "withdrawn"
    assert (await asker.ended(run)).outcome is Outcome.CANCELLED
    assert await notified(world) == [row.id]


async def test_a_restart_withdraws_questions(world: World, asker: Asker) -> None:
    run, row = await asker.ask("format")
    async with next_start(world) as later:
        assert (await later.record(run.id)).outcome is Outcome.LOST
        assert await notified(later) == [row.id]
    await cancel_questions(asker.waiting, "", ANA)
    await asker.ended(run)


async def two(asker: Asker) -> tuple[tuple[OpenRun, AskRow], tuple[OpenRun, AskRow]]:
    """Two sessions with a batch each; the first one is the older."""
    first = await asker.ask("format")
    return first, await asker.ask("sure", session=await asker.world.new_session())


async def test_several_batches_wait_and_an_id_selects(world: World, asker: Asker) -> None:
    """I28."""
    (run_1, row_1), (run_2, row_2) = await two(asker)
    assert (await answer(asker, row_2, yes=True)).resolved
    await asker.ended(run_2)
    assert [row.id for row in await asker.pending()] == [row_1.id]
    assert (await answer(asker, row_1)).resolved
    await asker.ended(run_1)
    assert await asker.results() == ["User skipped this question"]


async def test_without_an_id_the_answered_questions_select_or_else_the_oldest(
    world: World, asker: Asker
) -> None:
    """CW 6.2: Crush's client sends no id."""
    (run_1, _row_1), (run_2, row_2) = await two(asker)
    assert (await answer(asker, row_2, batch="", yes=False)).resolved
    await asker.ended(run_2)
    run_3, row_3 = await asker.ask("sure", session=await world.new_session())
    assert (await answer_questions(asker.waiting, QuestionAnswer(), ANA)).resolved
    await asker.ended(run_1)
    assert [row.id for row in await asker.pending()] == [row_3.id]
    await cancel_questions(asker.waiting, row_3.id, ANA)
    await asker.ended(run_3)


@pytest.mark.parametrize(
    ("said", "where"),
    [
        ({"request_id": "else"}, "request_id"),
        ({"selected_ids": ("xml",)}, "selected_ids"),
        ({"selected_ids": ("json", "json")}, "selected_ids"),
    ],
    ids=["another question", "no such choice", "two of one"],
)
async def test_an_answer_to_something_else_decides_nothing(
    world: World, asker: Asker, said: dict[str, Any], where: str
) -> None:
    """I27, G14."""
    run, row = await asker.ask("format")
    first = QuestionResponse(batch_of(row).questions[0].id)
    given = QuestionAnswer(row.id, (attrs.evolve(first, **said),))
    with pytest.raises(Refused, match=where):
        await answer_questions(asker.waiting, given, ANA)
    assert [each.id for each in await asker.pending()] == [row.id]
    await cancel_questions(asker.waiting, row.id, ANA)
    await asker.ended(run)


@pytest.mark.parametrize("mode", ["deny", "allow"])
async def test_a_model_may_ask_only_where_somebody_can_answer(
    world: World, asker: Asker, mode: str
) -> None:
    record = await asker.ended(world.submit("format", permission_mode=mode))
    assert (record.outcome, record.text) == (Outcome.COMPLETED, "done")
    [request] = world.kit.fake.requests
    assert [tool.name for tool in request.tools] == ["touch", "wipe"]
    assert await world.store.pending_asks() == ()


def call(*questions: Any, **more: Any) -> ToolCall:
    """A call of the tool."""
    return ToolCall("c", "question", {"questions": list(questions), **more})


@pytest.mark.parametrize(
    ("questions", "problem"),
    [
        ((), "at least one"),
        ((SURE,) * 6, "at most 5"),
        (("Sure?",), "must be an object"),
        (({**SURE, "type": "maybe"},), "type"),
        (({**SURE, "question": "é" * 121},), "longer than 240 bytes"),
        (({**SURE, "question": " "},), "must be a text"),
        (({**SURE, "description": None},), "must be a text"),
        (({**SURE, "description": "x" * 601},), "longer than 600 bytes"),
        (({**FORMAT, "choices": FORMAT["choices"][:1]},), "2 to 5 choices"),
        (({**FORMAT, "choices": [{"label": str(n)} for n in range(6)]},), "2 to 5 choices"),
        (({**FORMAT, "choices": [{"id": "a", "label": "A"}] * 2},), "must differ"),
        (({**FORMAT, "choices": [{"label": "x" * 201}, {"label": "y"}]},), "longer than 200"),
        (({**FORMAT, "choices": [1, 2]},), "must be an object"),
    ],
)
def test_a_question_beyond_the_limits_is_refused(questions: Any, problem: str) -> None:
    with pytest.raises(ToolProblem, match=problem):
        read_questions(call(*questions))


def test_ids_are_made_and_choices_may_be_words() -> None:
    [one, two_] = read_questions(call({**FORMAT, "choices": None, "options": ["A", "B"]}, SURE))
    assert [choice.label for choice in one.choices] == ["A", "B"]
    assert len({one.id, two_.id, *(choice.id for choice in one.choices)}) == 4
    assert two_.choices == ()


def test_the_model_reads_each_question_with_its_answer() -> None:
    questions = read_questions(call(FORMAT, SURE, {**SURE, "type": "free_text"}))
    csv = questions[0].choices[1].id
    said = (
        QuestionResponse(questions[0].id, (csv,), "with tabs", notes={csv: "UTF-8"}),
        QuestionResponse(questions[1].id, yes=False),
    )
    assert answers_text(questions, said) == (
        "Which format?\nUser selected: [CSV]\nUser provided: with tabs\nUser note on CSV: UTF-8\n\n"
        "Sure?\nUser answered: no\n\nSure?\nUser skipped this question"
    )


async def test_several_questions_have_confirm_texts(world: World, asker: Asker) -> None:
    run, row = await asker.ask("several")
    batch = batch_of(row)
    assert (batch.confirm_title, len(batch.questions)) == ("Ready to go?", 2)
    assert batch.confirm_description == "Review your answers above and confirm."
    await cancel_questions(asker.waiting, row.id, ANA)
    await asker.ended(run)
