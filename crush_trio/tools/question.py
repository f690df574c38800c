"""The tool `question`: ask the person who waits for this run (CW 6.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from crush_trio import limits
from crush_trio.agent.ports import NoAnswer, ToolCall, ToolContext, ToolResult, ToolSpec
from crush_trio.protocol.ids import new_id
from crush_trio.protocol.questions import (
    QUESTION_NOTE,
    QUESTION_TYPES,
    Choice,
    Question,
    QuestionResponse,
)
from crush_trio.tools import arguments
from crush_trio.tools.arguments import ToolProblem, answered

_CONFIRM = ("Ready to go?", "Review your answers above and confirm.")
_CHOOSING = ("single_choice", "multi_choice")

_CHOICE = arguments.schema(
    ("label",),
    id=arguments.string("Short unique name of the choice; made if left out"),
    label=arguments.string(f"What is picked, at most {limits.CHOICE_BYTES} bytes"),
    description=arguments.string(f"What it means, at most {limits.CHOICE_BYTES} bytes"),
)
_QUESTION = arguments.schema(
    ("type", "question", "description"),
    label=arguments.string("One or two words for a tab"),
    type={"type": "string", "enum": list(QUESTION_TYPES)},
    question=arguments.string(f"The question, at most {limits.QUESTION_BYTES} bytes"),
    description=arguments.string(
        f"What the answer decides, at most {limits.QUESTION_DESCRIPTION_BYTES} bytes"
    ),
    choices={
        "type": "array",
        "description": f"{limits.CHOICES_MIN} to {limits.CHOICES_MAX}, for choice questions only",
        "items": _CHOICE,
    },
)
_SPEC = ToolSpec(
    name="question",
    description=(
        "Ask the user up to five questions at once and wait for the answers. Use it only if you "
        "cannot go on without them: when the request allows several very different readings, or "
        "before a step that is hard to undo. The user may skip a question or add a note."
    ),
    parameters=arguments.schema(
        ("questions",),
        questions={"type": "array", "items": _QUESTION},
        confirm_title=arguments.string("Headline behind the last of several questions"),
        confirm_description=arguments.string("Text below it"),
    ),
    needs_person=True,
)


class QuestionTool:
    """Asks a person; see CW 6.2."""

    @property
    def spec(self) -> ToolSpec:
        """How the model sees it."""
        return _SPEC

    @answered
    async def run(self, call: ToolCall, context: ToolContext) -> ToolResult:
        """Check the questions, ask them, and give the answers to the model."""
        arguments.demand_tool(call, context)
        questions = read_questions(call)
        several = len(questions) > 1
        confirm = tuple(
            arguments.text(call, name, "") or (default if several else "")
            for name, default in zip(
                ("confirm_title", "confirm_description"), _CONFIRM, strict=True
            )
        )
        if context.questions is None:
            raise ToolProblem("Nobody is there to answer; decide yourself and say what you assumed")
        responses = await context.questions(questions, (confirm[0], confirm[1]))
        if isinstance(responses, NoAnswer):
            return ToolResult(responses.reason, is_error=True, stop_turn=responses.stop_turn)
        return ToolResult(answers_text(questions, responses))


def read_questions(call: ToolCall) -> tuple[Question, ...]:
    """The questions of a call, with ids.

    Raises:
        ToolProblem: One is missing, wrong or too long; it says which.
    """
    items = call.arguments.get("questions")
    if not isinstance(items, list) or not items:
        raise ToolProblem("question: `questions` must be a list of at least one question")
    if len(items) > limits.QUESTIONS_MAX:
        raise ToolProblem(f"question: at most {limits.QUESTIONS_MAX} questions at once")
    return tuple(_question(item, f"questions[{index}]") for index, item in enumerate(items))


def _question(item: Any, where: str) -> Question:
    if not isinstance(item, dict):
        raise ToolProblem(f"question: `{where}` must be an object")
    kind = item.get("type")
    if kind not in QUESTION_TYPES:
        raise ToolProblem(f"question: `{where}.type` must be one of {', '.join(QUESTION_TYPES)}")
    choices = item.get("choices") or item.get("options") or []
    return Question(
        id=new_id(),
        type=kind,
        question=_text(item, "question", where, limits.QUESTION_BYTES),
        label=_text(item, "label", where, limits.CHOICE_BYTES, required=False),
        description=_text(item, "description", where, limits.QUESTION_DESCRIPTION_BYTES),
        choices=_choices(choices, where) if kind in _CHOOSING else (),
    )


def _choices(items: Any, where: str) -> tuple[Choice, ...]:
    least, most = limits.CHOICES_MIN, limits.CHOICES_MAX
    if not isinstance(items, list) or not least <= len(items) <= most:
        raise ToolProblem(f"question: `{where}.choices` must be {least} to {most} choices")
    found = []
    for index, item in enumerate(items):
        at = f"{where}.choices[{index}]"
        item = {"label": item} if isinstance(item, str) else item
        if not isinstance(item, dict):
            raise ToolProblem(f"question: `{at}` must be an object")
        found.append(
            Choice(
                id=_text(item, "id", at, limits.CHOICE_BYTES, required=False) or new_id(),
                label=_text(item, "label", at, limits.CHOICE_BYTES),
                description=_text(item, "description", at, limits.CHOICE_BYTES, required=False),
            )
        )
    if len({choice.id for choice in found}) < len(found):
        raise ToolProblem(f"question: the ids of `{where}.choices` must differ")
    return tuple(found)


def _text(
    item: Mapping[str, Any], key: str, where: str, most: int, *, required: bool = True
) -> str:
    value = item.get(key)
    if value is None and not required:
        return ""
    if not isinstance(value, str) or (required and not value.strip()):
        raise ToolProblem(f"question: `{where}.{key}` must be a text")
    if len(value.encode("utf-8", "replace")) > most:
        raise ToolProblem(f"question: `{where}.{key}` is longer than {most} bytes")
    return value


def answers_text(questions: Sequence[Question], responses: Sequence[QuestionResponse]) -> str:
    """What the model reads: each question with its answer and notes."""
    by_id = {response.request_id: response for response in responses}
    blocks = []
    for question in questions:
        response = by_id.get(question.id, QuestionResponse(question.id))
        lines = _answer_lines(question, response)
        blocks.append("\n".join([question.question, *lines] if len(questions) > 1 else lines))
    return "\n\n".join(blocks)


def _answer_lines(question: Question, response: QuestionResponse) -> list[str]:
    labels = {choice.id: choice.label for choice in question.choices}
    lines = []
    if response.yes is not None:
        lines.append(f"User answered: {'yes' if response.yes else 'no'}")
    if response.selected_ids:
        picked = ", ".join(labels[choice] for choice in response.selected_ids)
        lines.append(f"User selected: [{picked}]")
    if response.fill_in_text:
        lines.append(f"User provided: {response.fill_in_text}")
    if not lines:
        lines.append("User skipped this question")
    for key, note in response.notes.items():
        about = "" if key == QUESTION_NOTE else f" on {labels.get(key, key)}"
        lines.append(f"User note{about}: {note}")
    return lines
