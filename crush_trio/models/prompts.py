"""What a run was asked to do, found in the messages of a model request."""

from __future__ import annotations

from crush_trio.agent.ports import ModelRequest


def turn_start(request: ModelRequest) -> int:
    """The index of the message that holds the run's prompt, or ``len(messages)`` if none does.

    It is the first user message of the run; where messages do not name their run, the first user
    message after the last answer that ended its turn.
    """
    messages = request.messages
    for index, message in enumerate(messages):
        if message.role == "user" and message.run_id == request.run_id:
            return index
    start = 0
    for index, message in enumerate(messages):
        if message.role == "assistant" and not message.tool_calls():
            start = index + 1
    users = (i for i in range(start, len(messages)) if messages[i].role == "user")
    return next(users, len(messages))


def prompt_of(request: ModelRequest) -> tuple[str, int]:
    """The text of the run's prompt, and which prompt of the session it is, counted from 1.

    Without any user message the text is empty and the number 0.
    """
    start = turn_start(request)
    if start == len(request.messages):
        return "", 0
    earlier = request.messages[: start + 1]
    number = sum(m.role == "user" and not m.is_summary_message for m in earlier)
    return request.messages[start].text(), number
