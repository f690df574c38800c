"""Questions of a model to a person, and their answers (CW 6.2, 13.5)."""

from __future__ import annotations

import attrs

QUESTION_TYPES = ("yes_no", "single_choice", "multi_choice", "free_text")
QUESTION_NOTE = "_question"
"""The key in `QuestionResponse.notes` of the note on the question itself; others are choice ids."""


@attrs.frozen
class Choice:
    """One answer that can be picked."""

    id: str
    label: str
    description: str = ""


@attrs.frozen
class Question:
    """One question of a batch; ``type`` is one of `QUESTION_TYPES`."""

    id: str
    type: str
    question: str
    label: str = ""
    description: str = ""
    choices: tuple[Choice, ...] = ()


@attrs.frozen
class QuestionRequest:
    """Questions that are asked together; the confirm texts are shown behind the last one."""

    id: str
    session_id: str
    tool_call_id: str
    questions: tuple[Question, ...]
    confirm_title: str = ""
    confirm_description: str = ""


@attrs.frozen
class QuestionNotification:
    """A batch has been answered, cancelled or withdrawn.

    ``ending`` (a word of `Resolution`) and ``decided_by`` are additions to CW.
    """

    batch_id: str
    ending: str = ""
    decided_by: str = ""


@attrs.frozen
class QuestionResponse:
    """The answer to the question ``request_id``; with nothing set it was skipped."""

    request_id: str = ""
    selected_ids: tuple[str, ...] = ()
    fill_in_text: str = ""
    yes: bool | None = None
    notes: dict[str, str] = attrs.field(factory=dict)


@attrs.frozen
class QuestionAnswer:
    """``POST …/questions/answer``: an empty ``batch_request_id`` means the oldest that fits."""

    batch_request_id: str = ""
    responses: tuple[QuestionResponse, ...] = ()


@attrs.frozen
class QuestionCancel:
    """``POST …/questions/cancel``: an empty ``batch_request_id`` means the oldest one."""

    batch_request_id: str = ""
