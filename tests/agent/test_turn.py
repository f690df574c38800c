"""One turn: its steps, its tools, its limits and its endings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from crush_trio import limits as all_limits
from crush_trio.agent.budget import LimitReached
from crush_trio.agent.calls import BAD_ARGUMENTS
from crush_trio.agent.ports import (
    Emit,
    FileChange,
    ModelError,
    ModelInfo,
    ModelRequest,
    StepEnd,
    TextDelta,
    ToolCallEnd,
    ToolCallStart,
    ToolContext,
    ToolInputDelta,
    ToolResult,
)
from crush_trio.agent.transcript import for_model, is_valid, user_message
from crush_trio.protocol.ids import MessageId
from crush_trio.protocol.messages import Message, TextPart, ToolCallPart, ToolResultPart
from crush_trio.protocol.runs import Limits, Outcome, Usage
from tests.agent.turn_kit import RUN, SESSION, SmallTool, answering, take, turn_of
from tests.models.kit import script, script_of

LOOK: dict[str, Any] = {"tool": "look"}
USAGE = {"input_tokens": 100, "output_tokens": 10}


def step(*actions: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"actions": list(actions), **more}


def results(journal: Any) -> list[ToolResultPart]:
    return [part for message in journal.messages() for part in message.tool_results()]


async def test_a_turn_goes_on_until_the_model_asks_for_nothing() -> None:
    """R51, G7: calls run in order, each result is durable before the next call."""
    model = script_of(
        step({"text": "I look. "}, LOOK, {"tool": "list"}), step({"text": "\nIt is empty."})
    )
    look, listing = answering("look"), answering("list", "nothing")
    end, turn, journal = await take(model, [look, listing])
    assert end.outcome is Outcome.COMPLETED
    assert [m.role for m in journal.messages()] == ["assistant", "tool", "tool", "assistant"]
    assert [part.content for part in results(journal)] == ["seen", "nothing"]
    assert [m.finish().reason for m in journal.messages() if m.role == "assistant"] == [  # type: ignore[union-attr]
        "tool_use",
        "end_turn",
    ]
    progress = turn.progress
    assert (progress.steps, progress.tool_calls, progress.text) == (2, 2, "It is empty.")
    assert progress.message_id == journal.messages()[-1].id
    assert journal.durable == [
        ["assistant"],
        ["assistant"],
        ["assistant", "tool"],
        ["assistant", "tool", "tool", "assistant"],
    ]
    assert progress.started_calls == frozenset()


async def test_usage_is_summed_and_the_last_steps_kept() -> None:
    """Cost by the price list, unless the provider says (CW 5.11)."""
    prices = {"cost_per_1m_in": 1.0, "cost_per_1m_out": 10.0}
    model = script_of(
        step(LOOK, usage=USAGE),
        step(LOOK, usage=USAGE, cost_usd=0.5),
        step({"text": "ok"}, usage={"input_tokens": 7}),
        model=prices,
    )
    _, turn, _ = await take(model, [answering("look")])
    assert turn.progress.usage == Usage(207, 20)
    assert turn.progress.last_usage == Usage(7)
    assert turn.progress.cost_usd == pytest.approx(0.5 + 200e-6 + 7e-6)
    _, free, _ = await take(script({"text": "ok"}))
    assert free.progress.cost_usd is None


BAD = [
    ({"tool": "look", "raw_input": '{"path": '}, BAD_ARGUMENTS, "{}"),
    ({"tool": "look", "raw_input": "[1]"}, BAD_ARGUMENTS, "{}"),
    ({"tool": "look", "input": {}}, "Missing required parameter: path (tool look)", "{}"),
    (
        {"tool": "look", "input": {"path": 3}},
        "Wrong parameter type: path must be string (tool look)",
        '{"path":3}',
    ),
    ({"tool": "loook", "input": {}}, "Unknown tool 'loook'; the tools are: look", "{}"),
]


@pytest.mark.parametrize(("action", "answer", "stored"), BAD)
async def test_a_wrong_call_is_not_run_but_answered(
    action: dict[str, Any], answer: str, stored: str
) -> None:
    """R51: input that is no JSON object is stored as {}, the model is told, the turn goes on."""
    look = answering("look")
    look.schema = {
        "properties": {"path": {"type": "string"}, "n": {"type": "integer"}},
        "required": ["path"],
    }
    end, _, journal = await take(script_of(step(action), step({"text": "ok"})), [look])
    assert end.outcome is Outcome.COMPLETED
    assert look.calls == []
    (result,) = results(journal)
    assert (result.content, result.is_error) == (answer, True)
    assert [call.input for call in journal.messages()[0].tool_calls()] == [stored]


async def test_broken_arguments_are_not_run_even_if_nothing_is_required() -> None:
    """R51: a command that was cut off must not become one without arguments."""
    look = answering("look")
    _, _, journal = await take(
        script_of(step({"tool": "look", "raw_input": '{"all": fal'}), step({"text": "ok"})), [look]
    )
    assert look.calls == []
    assert results(journal)[0].content == BAD_ARGUMENTS


async def test_parameters_nobody_knows_and_nulls_are_passed_on() -> None:
    look = answering("look")
    look.schema = {"properties": {"path": {"type": ["string", "null"]}, "n": {"type": "integer"}}}
    given = {"path": 3, "n": None, "other": [1]}
    await take(script_of(step({"tool": "look", "input": given}), step({"text": "ok"})), [look])
    assert look.calls == [given]


async def test_a_tool_that_raises_is_an_error_the_model_sees() -> None:
    def broken(_args: Mapping[str, Any], _context: ToolContext) -> ToolResult:
        raise OSError("no such thing")

    end, turn, journal = await take(
        script_of(step(LOOK), step({"text": "ok"})), [SmallTool("look", broken)]
    )
    assert end.outcome is Outcome.COMPLETED
    assert results(journal)[0].content == "look failed: OSError: no such thing"
    assert turn.progress.started_calls == frozenset()


async def test_what_a_tool_did_is_stored_with_its_result() -> None:
    changed = answering("look", changes=(FileChange("/w/a", None, "x"),), metadata={"n": 1})
    _, _, journal = await take(script_of(step(LOOK), step({"text": "ok"})), [changed])
    assert [effect.changes[0].path for effect in journal.effects] == ["/w/a"]
    assert results(journal)[0].metadata == '{"n":1}'


@pytest.mark.parametrize("denied", [False, True])
async def test_a_result_can_stop_the_turn_after_its_step(denied: bool) -> None:
    """R70: all calls of the step are answered; the message says end_turn; a denial counts."""
    model = script_of(step({"tool": "stop"}, LOOK), step({"text": "never"}))
    stop = answering("stop", stop_turn=True, denied=denied)
    end, turn, journal = await take(model, [stop, answering("look")])
    assert end.outcome is (Outcome.DENIED if denied else Outcome.COMPLETED)
    assert (end.error is not None) == denied
    assert turn.progress.steps == 1
    assert len(results(journal)) == 2
    finish = journal.messages()[0].finish()
    assert finish is not None
    assert finish.reason == "end_turn"


async def test_a_denied_call_does_not_stop_the_turn() -> None:
    end, turn, _ = await take(
        script_of(step(LOOK), step({"text": "then not"})), [answering("look", denied=True)]
    )
    assert (end.outcome, turn.progress.denied) == (Outcome.DENIED, 1)
    assert end.error is not None
    assert "1 tool call was denied" in end.error.message
    assert turn.progress.text == "then not"


# --- limits -------------------------------------------------------------------------------

LOOPING = [
    (Limits(max_steps=3), "max_steps", 3),
    (Limits(max_tool_calls=4), "max_tool_calls", 5),
    (Limits(max_output_tokens=25), "max_output_tokens", 3),
    (Limits(max_cost_usd=0.35), "max_cost_usd", 4),
]


@pytest.mark.parametrize(("limits", "code", "steps"), LOOPING)
async def test_each_limit_ends_the_turn_as_limited(limits: Limits, code: str, steps: int) -> None:
    counter = iter(range(1000))
    look = SmallTool("look", lambda _args, _context: ToolResult(str(next(counter))))
    free = {"cost_per_1m_in": 0.0, "cost_per_1m_out": 0.0}
    model = script_of(step(LOOK, usage=USAGE, cost_usd=0.1), then="repeat", model=free)
    end, turn, _ = await take(model, [look], limits)
    assert end.outcome is Outcome.LIMITED
    assert end.error is not None
    assert (end.error.code, turn.progress.steps) == (code, steps)


async def test_without_a_limit_the_servers_own_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(all_limits, "MAX_STEPS", 7)
    counter = iter(range(1000))
    look = SmallTool("look", lambda _args, _context: ToolResult(str(next(counter))))
    end, turn, _ = await take(script_of(step(LOOK), then="repeat"), [look])
    assert (end.outcome, turn.progress.steps) == (Outcome.LIMITED, 7)


async def test_the_same_calls_with_the_same_results_end_the_turn() -> None:
    """R66: the sixth time."""
    end, turn, _ = await take(script_of(step(LOOK), then="repeat"), [answering("look")])
    assert end.outcome is Outcome.LIMITED
    assert end.error is not None
    assert (end.error.code, turn.progress.steps) == ("loop", all_limits.LOOP_REPEATS + 1)


async def test_an_answer_cut_at_its_limit_is_limited_and_kept() -> None:
    """Calls that came with it are answered; one that was cut off is not run."""
    model = script_of(step({"text": "half"}, LOOK, finish="max_tokens"))
    end, turn, journal = await take(model, [answering("look")])
    assert end.error is not None
    assert (end.outcome, end.error.code) == (Outcome.LIMITED, "max_output_tokens")
    assert turn.progress.text == "half"
    assert len(results(journal)) == 1


async def test_the_model_is_told_how_much_it_may_still_write() -> None:
    asked = []

    class Listening:
        info = ModelInfo("fake", "m")

        async def stream(self, request: ModelRequest, emit: Emit) -> StepEnd:
            await trio.lowlevel.checkpoint()
            asked.append(request.max_output_tokens)
            if request.step > 1:
                emit(TextDelta("ok"))
                return StepEnd("end_turn")
            emit(ToolCallStart("x", "look"))
            emit(ToolInputDelta("x", "{}"))
            emit(ToolCallEnd("x", "{}"))
            return StepEnd("tool_use", Usage(output_tokens=30))

    await take(Listening(), [answering("look")], Limits(max_output_tokens=100))
    assert asked == [100, 70]


async def test_a_silent_model_is_given_up(autojump_clock: MockClock) -> None:
    """What it said stays; each piece starts the time anew, and a retry's wait does not count."""
    model = script(
        {"text": "a", "tokens": 3, "every_ms": 4000},
        {"reset": "429", "delay_ms": 9000},
        {"text": "b"},
        {"silence": True},
    )
    turn, journal = turn_of(model, limits=Limits(idle_timeout_s=5))
    with pytest.raises(LimitReached) as reached:
        await turn.take()
    assert reached.value.code == "idle_timeout"
    assert trio.current_time() == pytest.approx(8 + 9 + 5)
    assert [message.text() for message in journal.messages()] == ["b"]
    assert [reset.cause for reset in journal.resets] == ["429"]


async def test_open_text_is_written_every_second_while_it_changes(
    autojump_clock: MockClock,
) -> None:
    """G8."""
    model = script({"text": "x", "tokens": 10, "every_ms": 300}, {"wait_ms": 10_000})
    _, _, journal = await take(model)
    assert journal.checkpoints == ["x" * 4, "x" * 7, "x" * 10]


# --- endings ------------------------------------------------------------------------------


@pytest.mark.parametrize("actions", [[], [{"text": " \n"}], [{"reasoning": "hm"}]])
async def test_an_empty_answer_is_a_failure_and_its_message_stays_open(
    actions: list[dict[str, Any]],
) -> None:
    """R53: so that the ending can say why in it."""
    turn, journal = turn_of(script(*actions))
    with pytest.raises(ModelError) as failed:
        await turn.take()
    assert (failed.value.code, failed.value.retryable) == ("empty_answer", True)
    assert journal.messages()[-1].finish() is None


@pytest.mark.parametrize("actions", [[], [{"text": " \n"}], [{"reasoning": "hm"}]])
async def test_silence_after_tools_is_a_failure_too(actions: list[dict[str, Any]]) -> None:
    """R-EMPTY: also if there was text before the tools."""
    turn, journal = turn_of(script_of(step({"text": "I look."}, LOOK), step(*actions)))
    with pytest.raises(ModelError) as failed:
        await turn.take()
    assert (failed.value.code, failed.value.retryable) == ("empty_answer", True)
    assert ("thought" in failed.value.message) == ("reasoning" in str(actions))
    assert journal.messages()[-1].finish() is None


@pytest.mark.parametrize("reason", ["end_turn", "unknown"])
async def test_a_model_that_asked_for_tools_gets_their_results_whatever_it_says(
    reason: str,
) -> None:
    """R-COMPAT: some servers name the wrong reason, or none."""
    model = script_of(step(LOOK, finish=reason), step({"text": "ok"}))
    end, turn, journal = await take(model, [answering("look")])
    assert (end.outcome, turn.progress.text) == (Outcome.COMPLETED, "ok")
    finish = journal.messages()[0].finish()
    assert finish is not None
    assert finish.reason == "tool_use"


async def test_an_answer_that_ended_for_an_unknown_reason_is_an_answer() -> None:
    end, _, journal = await take(script({"text": "ok"}, finish="unknown"))
    finish = journal.messages()[0].finish()
    assert finish is not None
    assert (end.outcome, finish.reason) == (Outcome.COMPLETED, "unknown")


async def test_what_a_filter_stopped_is_a_failure_and_keeps_its_text() -> None:
    """G13: an answer that was cut is not complete; its calls are not run."""
    look = answering("look")
    end, turn, journal = await take(script({"text": "half"}, LOOK, finish="content_filter"), [look])
    assert end.error is not None
    assert (end.outcome, end.error.code) == (Outcome.FAILED, "content_filtered")
    assert not end.error.retryable
    assert (turn.progress.text, look.calls) == ("half", [])
    finish = journal.messages()[0].finish()
    assert finish is not None
    assert finish.reason == "content_filter"
    turn, journal = turn_of(script(finish="content_filter"))
    with pytest.raises(ModelError) as failed:
        await turn.take()
    assert (failed.value.code, failed.value.retryable) == ("content_filtered", False)


@pytest.mark.parametrize("action", [{"tool": "look", "raw_input": ""}, {"reasoning": "hm"}])
async def test_an_answer_cut_before_it_said_anything_is_limited(action: dict[str, Any]) -> None:
    """A call that has no arguments yet when the limit comes is not run without them."""
    look = answering("look")
    end, _, journal = await take(script(action, finish="max_tokens"), [look])
    assert end.error is not None
    assert (end.outcome, end.error.code) == (Outcome.LIMITED, "max_output_tokens")
    assert ("before it said anything" in end.error.message) == ("reasoning" in action)
    assert look.calls == []
    cut = "Not run: the call was cut off at the output limit"
    assert [part.content for part in results(journal)] == [cut] * ("tool" in action)


async def test_a_call_that_was_streamed_before_a_reset_is_run_once(
    autojump_clock: MockClock,
) -> None:
    """R51: tools are never run again by a retry; what the reset took back is not run at all."""
    look = SmallTool("look", lambda args, _context: ToolResult(str(args)))
    model = script_of(
        step(
            {"tool": "look", "id": "a", "input": {"n": 1}},
            {"tool": "look", "id": "b", "input": {"n": 2}},
            {"reset": "cut", "delay_ms": 100},
            {"tool": "look", "id": "a", "input": {"n": 3}},
        ),
        step({"text": "ok"}),
    )
    end, turn, journal = await take(model, [look])
    assert end.outcome is Outcome.COMPLETED
    assert look.calls == [{"n": 3}]
    assert [call.id for m in journal.messages() for call in m.tool_calls()] == ["a"]
    assert turn.progress.tool_calls == 1


async def test_an_answer_that_broke_off_is_counted_beside_the_one_that_did_not(
    autojump_clock: MockClock,
) -> None:
    """R-COST."""
    model = script_of(
        step(
            {"usage_so_far": {"input_tokens": 100, "output_tokens": 1}},
            {"text": "half of"},
            {"reset": "cut", "delay_ms": 100},
            {"usage_so_far": {"input_tokens": 100, "output_tokens": 1}},
            {"text": "all of it"},
            usage={"input_tokens": 100, "output_tokens": 3},
        )
    )
    _, turn, _ = await take(model, [])
    assert turn.progress.usage == Usage(200, 6, estimated=True)
    assert turn.progress.last_usage == Usage(100, 3)


async def test_an_error_of_the_model_leaves_its_message_open() -> None:
    """R54."""
    turn, journal = turn_of(script({"text": "half"}, {"error": "overloaded", "retryable": True}))
    with pytest.raises(ModelError, match="overloaded"):
        await turn.take()
    assert [message.text() for message in journal.messages()] == ["half"]
    assert journal.messages()[-1].finish() is None


async def test_a_cancelled_turn_says_which_call_was_running() -> None:
    """R53."""
    began = trio.Event()

    async def stay(_args: Mapping[str, Any], _context: ToolContext) -> ToolResult:
        began.set()
        await trio.sleep_forever()
        raise AssertionError

    turn, journal = turn_of(
        script(LOOK, {"tool": "stay", "id": "second"}, LOOK),
        [answering("look"), SmallTool("stay", stay)],
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(turn.take)
        await began.wait()
        nursery.cancel_scope.cancel()
    assert turn.progress.started_calls == {"second"}
    assert turn.progress.waiting_on == "tool:stay"
    assert len(results(journal)) == 1


async def test_a_model_that_asks_for_tools_without_asking_has_ended() -> None:
    end, _, journal = await take(script({"text": "ok"}, finish="tool_use"))
    finish = journal.messages()[0].finish()
    assert finish is not None
    assert (end.outcome, finish.reason) == (Outcome.COMPLETED, "end_turn")


async def test_ids_of_calls_are_unique_in_the_session() -> None:
    """G7: a model that numbers its calls from 0 in every answer."""
    history: list[Message] = [
        user_message(SESSION, RUN, (TextPart("before"),), 0),
        Message(MessageId("a"), "assistant", SESSION, (ToolCallPart("0", "look", "{}", True),)),
        Message(MessageId("t"), "tool", SESSION, (ToolResultPart("0", "look", "seen"),)),
    ]
    action = {"tool": "look", "id": "0"}
    counter = iter(range(9))
    look = SmallTool("look", lambda _args, _context: ToolResult(str(next(counter))))
    turn, journal = turn_of(
        script_of(step(action), step(action), step({"text": "ok"})), [look], history=history
    )
    await turn.take()
    whole = [*history, *journal.messages()]
    assert is_valid(whole)
    assert [c.id for m in whole for c in m.tool_calls()] == ["0", "0_2", "0_3"]
    assert for_model(whole)[-1].text() == "ok"


async def test_prompts_that_steer_are_sent_with_the_next_step() -> None:
    """R50."""
    sent = []
    model = script_of(step(LOOK), step({"text": "ok"}))

    @attrs.define
    class Listening:
        info: ModelInfo = model.info

        async def stream(self, request: ModelRequest, emit: Emit) -> StepEnd:
            sent.append([message.role for message in request.messages])
            return await model.stream(request, emit)

    def steer(_args: Mapping[str, Any], _context: ToolContext) -> ToolResult:
        journal.waiting.append(user_message(SESSION, RUN, (TextPart("left"),), 0))
        return ToolResult("seen")

    turn, journal = turn_of(Listening(), [SmallTool("look", steer)])
    await turn.take()
    assert sent == [["user"], ["user", "assistant", "tool", "user"]]
    assert [m.role for m in journal.messages()] == ["assistant", "tool", "user", "assistant"]
