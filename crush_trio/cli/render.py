"""Records, frames and messages as text for people (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from crush_trio.cli.sanitize import for_terminal, one_line
from crush_trio.client.shapes import JsonObject, child, children, number, text

_RESULT_MARK = {False: "✓", True: "✗"}


def table(rows: Sequence[Sequence[str]], header: Sequence[str]) -> str:
    """Columns under a header, two spaces between; empty without rows."""
    if not rows:
        return ""
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def seconds(value: float) -> str:
    """A duration as people say it: ``0.4s``, ``12s``, ``3m05s``, ``2h10m``."""
    if value < 10:
        return f"{value:.1f}s"
    if value < 60:
        return f"{int(value)}s"
    minutes, rest = divmod(int(value), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    return f"{minutes // 60}h{minutes % 60:02d}m"


def state_of(record: JsonObject) -> str:
    """How a run stands: its outcome, or its state and what it waits for."""
    outcome = text(record, "outcome")
    if outcome:
        return outcome
    waiting = text(record, "waiting_on")
    return f"{text(record, 'state')} ({waiting})" if waiting else text(record, "state")


def runs_table(records: Iterable[JsonObject], now_ms: int) -> str:
    """``ps``: one run a line."""
    rows = []
    for record in records:
        begun = number(record, "started_at_ms") or number(record, "created_at_ms")
        ended = number(record, "finished_at_ms") or now_ms
        rows.append(
            (
                text(record, "id"),
                state_of(record),
                seconds(max(0, ended - begun) / 1000),
                text(record, "session_id")[:8],
                one_line(asked(record), 50),
            )
        )
    return table(rows, ("RUN", "STATE", "TIME", "SESSION", "PROMPT"))


def jobs_table(records: Iterable[JsonObject], now_ms: int) -> str:
    """``ps``: one background job a line."""
    rows = [
        (
            text(record, "job_id"),
            text(record, "state"),
            seconds(max(0, now_ms - number(record, "started_at_ms")) / 1000),
            text(record, "session_id")[:8],
            one_line(text(record, "command"), 50),
        )
        for record in records
    ]
    return table(rows, ("JOB", "STATE", "TIME", "SESSION", "COMMAND"))


def asked(record: JsonObject) -> str:
    """What a run was asked to do, as a person would have typed it."""
    kind, prompt = text(record, "kind"), text(record, "prompt")
    if kind == "summarize":
        return "/summarize"
    if kind == "agent":
        return f"(sub-agent) {prompt}"
    return f"!{prompt}" if kind == "shell" else prompt


def status_text(record: JsonObject, tool: str, elapsed: float) -> str:
    """The status line: elapsed, what it does or waits for, tokens."""
    doing = tool or text(record, "waiting_on") or text(record, "state") or "waiting"
    usage = child(record, "usage")
    tokens = number(usage, "input_tokens") + number(usage, "output_tokens")
    counted = f" · {tokens} tokens" if tokens else ""
    return f"{seconds(elapsed)} · {one_line(doing, 60)}{counted}"


def failure_sentence(record: JsonObject) -> str:
    """Why the run did not complete, for stderr; empty if it did."""
    outcome = text(record, "outcome")
    if outcome == "completed":
        return ""
    message = text(child(record, "error"), "message")
    if outcome == "denied":
        count = record.get("denied")
        message = message or f"{count} tool call(s) were denied; see --allow-tool and -y"
    if outcome == "cancelled":
        who = child(record, "cancelled_by")
        reason, name = text(who, "reason"), text(who, "principal")
        told = (f"by {name}" if name else "", f"({reason})" if reason else "", message)
        return " ".join(filter(None, ("cancelled", *told)))
    return f"{outcome}: {message}" if message else outcome


class ToolLines:
    """Turns the frames of a run into one line per tool call and one per result; those of its
    sub-agents are indented."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._shown: set[str] = set()
        self._names: dict[str, str] = {}
        self.running = ""
        self._top = ""

    def take(self, frame: JsonObject) -> list[str]:
        """The lines that ``frame`` adds."""
        kind = frame.get("type")
        payload = child(child(frame, "payload"), "payload")
        if kind == "retry":
            return [
                f"… try {number(payload, 'attempt')} of {number(payload, 'max_attempts')}: "
                + one_line(text(payload, "cause"), self._width)
            ]
        if kind == "permission_request":
            return [f"? {one_line(text(payload, 'description'), self._width)}"]
        if kind != "message":
            return []
        session = text(payload, "session_id")
        self._top = self._top or session
        indent = "" if session == self._top else "  "
        lines = []
        for part in children(payload, "parts"):
            line = self._part(text(part, "type"), child(part, "data"), session)
            if line:
                lines.append(indent + line)
        return lines

    def _part(self, kind: str, data: JsonObject, session: str) -> str:
        call = text(data, "id") if kind == "tool_call" else text(data, "tool_call_id")
        call = f"{session} {call}"  # of a sub-agent they are others
        if kind == "tool_call" and data.get("finished") is True and call not in self._shown:
            self._shown.add(call)
            self.running = text(data, "name")
            return f"→ {tool_call(data, self._width)}"
        if kind == "tool_result" and f"result {call}" not in self._shown:
            self._shown.add(f"result {call}")
            self.running = ""
            return f"{_RESULT_MARK[data.get('is_error') is True]} {tool_result(data, self._width)}"
        return ""


def tool_call(data: JsonObject, width: int) -> str:
    """A tool call on one line: its name and what it is about."""
    return one_line(f"{text(data, 'name')} {text(data, 'input')}", width)


def tool_result(data: JsonObject, width: int) -> str:
    """A tool's result on one line: its name and how much it said, or its first line if short."""
    content = text(data, "content")
    lines = content.count("\n") + 1 if content else 0
    said = content if lines <= 1 else f"{lines} lines"
    return one_line(f"{text(data, 'name')} {said}", width)


def todos_text(session: JsonObject) -> str:
    """A session's to-do list, one entry a line; empty without one."""
    todos = children(session, "todos")
    marks = {"completed": "✓", "in_progress": "→"}
    lines = [
        f"{marks.get(text(todo, 'status'), '·')} {one_line(text(todo, 'content'), 200)}"
        for todo in todos
    ]
    return "\n".join(["── to do", *lines]) if lines else ""


def current_todo(session: JsonObject) -> str:
    """What is being done of a session's to-do list; empty if nothing is."""
    todos = children(session, "todos")
    now = (text(todo, "active_form") for todo in todos if text(todo, "status") == "in_progress")
    return one_line(next(now, ""), 40)


def message_text(message: JsonObject) -> str:
    """A stored message for ``session show``: its role, then its parts."""
    lines = [f"── {text(message, 'role')} {text(message, 'model')}".rstrip()]
    for part in children(message, "parts"):
        kind, data = text(part, "type"), child(part, "data")
        if kind == "text":
            lines.append(for_terminal(text(data, "text")))
        elif kind == "reasoning":
            lines.append("(thinks) " + one_line(text(data, "thinking"), 200))
        elif kind == "tool_call":
            lines.append("→ " + tool_call(data, 200))
        elif kind == "tool_result":
            lines.append(_RESULT_MARK[data.get("is_error") is True] + " " + tool_result(data, 200))
        elif kind == "finish" and text(data, "reason") not in ("end_turn", "tool_use", "stop", ""):
            lines.append(
                f"({text(data, 'reason')}) {one_line(text(data, 'message'), 200)}".rstrip()
            )
        elif kind == "binary":
            lines.append(f"[{text(data, 'MIMEType')} {text(data, 'Path')}]")
        elif kind == "shell_command":
            lines.append("$ " + one_line(text(data, "command"), 200))
            lines.append(for_terminal(text(data, "output")).rstrip("\n"))
            lines.append(f"(exit code {number(data, 'exit_code')})")
    return "\n".join(lines)


def flat_part(part: JsonObject) -> dict[str, Any]:
    """A part in the flat form of ``session show --json`` (CW 9.1)."""
    kind, data = text(part, "type"), child(part, "data")
    if kind == "binary":
        size = len(text(data, "Data")) * 3 // 4
        return {"type": kind, "size": size, "mime_type": text(data, "MIMEType")}
    if kind == "tool_call":
        return {
            "type": kind,
            "tool_call_id": text(data, "id"),
            "name": text(data, "name"),
            "input": text(data, "input"),
        }
    kept = {key: value for key, value in data.items() if key not in ("signature", "data")}
    return {"type": kind, **kept}


def payload_of(frame: JsonObject) -> JsonObject:
    """The inner payload of an event."""
    return child(child(frame, "payload"), "payload")


def _said(part: JsonObject) -> str:
    """What of a user's message is shown in one line."""
    data = child(part, "data")
    if text(part, "type") == "shell_command":
        return f"!{text(data, 'command')}"
    return text(data, "text") if text(part, "type") == "text" else ""


class LiveText:
    """Turns a workspace's frames into running text for ``watch``.

    Text is written as it comes; offsets tell what has been written already, so that the present
    state after a reconnection is not written twice.
    """

    def __init__(self) -> None:
        self._written: dict[tuple[str, int], int] = {}
        self._tools = ToolLines(160)
        self._open: tuple[str, int] | None = None

    def take(self, frame: JsonObject) -> str:
        """What ``frame`` adds."""
        kind = frame.get("type")
        if kind == "message_delta":
            if frame.get("part") != "text":
                return ""
            key = (text(frame, "message_id"), number(frame, "index"))
            return self._piece(key, number(frame, "offset"), text(frame, "text"))
        if kind == "tool_output" and text(frame, "tool_call_id") == text(frame, "run_id"):
            # A person's command: its output is what the run is about.
            key = (text(frame, "run_id") + text(frame, "stream"), 0)
            return self._piece(key, number(frame, "offset"), text(frame, "text"))
        if kind == "agent_event" and text(payload_of(frame), "type") == "summarize":
            before, after = (number(payload_of(frame), f"tokens_{w}") for w in ("before", "after"))
            return self._line(f"── summarised {before} tokens to {after}")
        if kind == "resync":
            return self._line(f"── resync ({text(frame, 'reason')})")
        payload = payload_of(frame)
        if kind == "message":
            return self._message(payload) + self._lines(frame)
        if kind == "run_complete":
            return self._line(f"── {text(payload, 'run_id')} {text(payload, 'outcome')}")
        if kind == "session" and child(frame, "payload").get("type") != "updated":
            change = text(child(frame, "payload"), "type")
            return self._line(f"── session {text(payload, 'id')} {change}")
        return self._lines(frame)

    def _message(self, message: JsonObject) -> str:
        found = []
        if text(message, "role") == "user":
            key = (text(message, "id"), -1)
            if key not in self._written:
                self._written[key] = 0
                said = " ".join(filter(None, map(_said, children(message, "parts"))))
                found.append(self._line("> " + one_line(said, 160)))
        elif text(message, "role") == "assistant":
            for index, part in enumerate(children(message, "parts")):
                if text(part, "type") == "text":
                    key = (text(message, "id"), index)
                    found.append(self._piece(key, 0, text(child(part, "data"), "text")))
        return "".join(found)

    def _piece(self, key: tuple[str, int], offset: int, said: str) -> str:
        have = self._written.get(key, 0)
        fresh = said[max(0, have - offset) :]
        if not fresh:
            return ""
        self._written[key] = max(have, offset + len(said))
        begin = "" if self._open in (None, key) else "\n"
        self._open = None if fresh.endswith("\n") else key
        return begin + fresh

    def _lines(self, frame: JsonObject) -> str:
        return "".join(self._line(line) for line in self._tools.take(frame))

    def _line(self, line: str) -> str:
        begin = "" if self._open is None else "\n"
        self._open = None
        return f"{begin}{line}\n"
