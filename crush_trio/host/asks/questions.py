"""Questions of a model to a person: asking them, and the answers that fit them (CW 6.2)."""

from __future__ import annotations

from collections.abc import Sequence

from crush_trio.agent.ports import NoAnswer
from crush_trio.dispatch.run import Run
from crush_trio.host.asks.asking import Pending, Verdict, Waiting
from crush_trio.host.asks.permissions import AskRules, spoken
from crush_trio.protocol.errors import Refused
from crush_trio.protocol.ids import new_id
from crush_trio.protocol.questions import (
    Question,
    QuestionAnswer,
    QuestionRequest,
    QuestionResponse,
)
from crush_trio.protocol.requests import Resolution
from crush_trio.protocol.runs import RunRecord
from crush_trio.store.contract import AskRow

CANCELLED = "User cancelled this question"


async def ask_questions(
    waiting: Waiting,
    run: Run,
    record: RunRecord,
    call_id: str,
    questions: tuple[Question, ...],
    confirm: tuple[str, str],
    rules: AskRules,
) -> tuple[QuestionResponse, ...] | NoAnswer:
    """The answers, or why there are none: a person cancelled them, or nobody answered in time.

    Raises:
        StoreError: The questions or the answers are not durable.
    """
    batch = QuestionRequest(new_id(), record.session_id, call_id, questions, *confirm)
    row = AskRow(
        batch.id,
        "question",
        record.workspace_id,
        record.session_id,
        record.id,
        batch,
        deadline_s=rules.deadline_s,
    )
    verdict = await waiting.ask(row, run, "question")
    if verdict.ending == "answered":
        return verdict.responses
    if verdict.ending == "expired":
        unanswered = f"Nobody answered within {spoken(row.deadline_s)}"
        return NoAnswer(unanswered, stop_turn=rules.deny_stops)
    return NoAnswer(CANCELLED)


async def answer_questions(waiting: Waiting, answer: QuestionAnswer, by: str) -> Resolution:
    """Answer a batch; without an id the oldest that has the answered questions, or the oldest.

    Raises:
        Refused: ``bad_request``: it answers something that was not asked; the batch still waits.
        StoreError: The answer is not durable.
    """
    batch_id = answer.batch_request_id or _meant(waiting.undecided("question"), answer.responses)
    pending = waiting.find(batch_id, "question")
    if pending is not None and isinstance(pending.row.request, QuestionRequest):
        check_responses(pending.row.request, answer.responses)
    verdict = Verdict("answered", by, responses=answer.responses)
    return await waiting.answer(batch_id, "question", verdict)


async def cancel_questions(waiting: Waiting, batch_id: str, by: str) -> Resolution:
    """Cancel a batch; without an id the oldest.

    Raises:
        StoreError: The cancellation is not durable.
    """
    batch_id = batch_id or _meant(waiting.undecided("question"), ())
    return await waiting.answer(batch_id, "question", Verdict("cancelled", by))


def _meant(pending: Sequence[Pending], responses: Sequence[QuestionResponse]) -> str:
    named = {response.request_id for response in responses}
    for each in pending:
        request = each.row.request
        if isinstance(request, QuestionRequest) and named & {q.id for q in request.questions}:
            return each.row.id
    return pending[0].row.id if pending else ""


def check_responses(batch: QuestionRequest, responses: Sequence[QuestionResponse]) -> None:
    """Whether each response answers a question of the batch with choices it has.

    Raises:
        Refused: ``bad_request`` that names what was not asked.
    """
    questions = {question.id: question for question in batch.questions}
    seen: set[str] = set()
    for index, response in enumerate(responses):
        where = f"`responses[{index}]"
        question = questions.get(response.request_id)
        if question is None or question.id in seen:
            known = ", ".join(questions)
            raise Refused("bad_request", f"{where}.request_id` must be one of {known}, once each.")
        seen.add(question.id)
        choices = [choice.id for choice in question.choices]
        if not set(response.selected_ids) <= set(choices):
            allowed = ", ".join(choices) or "nothing"
            raise Refused("bad_request", f"{where}.selected_ids` may hold {allowed}.")
        if len(response.selected_ids) > 1 and question.type == "single_choice":
            raise Refused("bad_request", f"{where}.selected_ids` may hold one choice.")
