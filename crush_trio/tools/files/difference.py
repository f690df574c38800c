"""What an edit changed: lines added and removed, and a unified diff of them."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from typing import Any

import attrs

from crush_trio.limits import DIFF_CHARS, DIFF_LINES

_CONTEXT = 3  # lines shown around a change
_Opcode = tuple[str, int, int, int, int]


@attrs.frozen
class Difference:
    """Lines added and removed between two texts, and a unified diff unless it is too large."""

    additions: int
    removals: int
    diff: str


def difference(path: str, before: str, after: str) -> Difference:
    """What changed between two texts. May take a second: call it in a worker thread.

    Names with control characters are quoted, so that a diff's lines are its own.
    """
    if not path.isprintable():
        path = json.dumps(path)
    head, tail = _same_lines(before, after)
    removals, additions = (
        len(split_lines(text[head : len(text) - tail])) for text in (before, after)
    )
    if removals + additions > DIFF_LINES:
        return Difference(additions, removals, f"(over {DIFF_LINES} lines: no diff was made)\n")
    # Only the part that differs is compared, with the context a hunk shows around it.
    begin, end = head, len(before) - tail
    for _ in range(_CONTEXT):
        begin = before.rfind("\n", 0, max(0, begin - 1)) + 1
        end = (before.find("\n", end) + 1) or len(before)
    lines = _hunks(
        split_lines(before[begin:end]),
        split_lines(after[begin : len(after) - len(before) + end]),
        before.count("\n", begin, head),
        len(split_lines(before[len(before) - tail : end])),
        before.count("\n", 0, begin),
    )
    diff = "".join((f"--- a/{path}\n", f"+++ b/{path}\n", *map(_ended, lines)))
    return Difference(
        sum(line.startswith("+") for line in lines),
        sum(line.startswith("-") for line in lines),
        diff if len(diff) <= DIFF_CHARS else f"(over {DIFF_CHARS} characters: no diff is shown)\n",
    )


def _hunks(old: list[str], new: list[str], lead: int, trail: int, skipped: int) -> list[str]:
    """The hunks of a unified diff.

    Args:
        lead: So many lines at the start are the same in both,
        trail: and so many at the end; they are there to be shown around a change.
        skipped: Lines that stand before these.
    """
    inner = difflib.SequenceMatcher(
        None, old[lead : len(old) - trail], new[lead : len(new) - trail]
    )
    found: list[_Opcode] = [("equal", 0, lead, 0, lead)]
    for how, a, a_end, b, b_end in inner.get_opcodes():
        found.append((how, a + lead, a_end + lead, b + lead, b_end + lead))
    found += [("equal", len(old) - trail, len(old), len(new) - trail, len(new))]
    lines = []
    for group in _Compared(_joined(found)).get_grouped_opcodes(_CONTEXT):
        (_, a, _, b, _), (_, _, a_end, _, b_end) = group[0], group[-1]
        lines.append(f"@@ -{_span(a, a_end, skipped)} +{_span(b, b_end, skipped)} @@\n")
        for tag, begin, end, new_begin, new_end in group:
            if tag == "equal":
                lines += (f" {line}" for line in old[begin:end])
            else:
                lines += (f"-{line}" for line in old[begin:end])
                lines += (f"+{line}" for line in new[new_begin:new_end])
    return lines


class _Compared(difflib.SequenceMatcher[str]):
    """A comparison that has been made already, to be cut into hunks."""

    def __init__(self, found: list[_Opcode]) -> None:
        super().__init__()
        self._found: Any = found

    def get_opcodes(self) -> Any:
        """What was found."""
        return self._found


def _joined(found: list[_Opcode]) -> list[_Opcode]:
    """The same with what is equal side by side as one, and without what is empty."""
    joined: list[_Opcode] = []
    for tag, a, a_end, b, b_end in found:
        if joined and tag == joined[-1][0] == "equal":
            joined[-1] = (tag, joined[-1][1], a_end, joined[-1][3], b_end)
        elif a < a_end or b < b_end:
            joined.append((tag, a, a_end, b, b_end))
    return joined


def _span(begin: int, end: int, skipped: int) -> str:
    """Lines from ``begin`` to ``end`` as a hunk's header names them."""
    first = begin + skipped + (end > begin)  # of no lines, the line before them is named
    return str(first) if end - begin == 1 else f"{first},{end - begin}"


def _same_lines(one: str, other: str) -> tuple[int, int]:
    """How many characters, in whole lines, two texts have in common at the start and at the end."""
    shortest = min(len(one), len(other))
    head = _most(shortest, lambda size: one[:size] == other[:size])
    if head < shortest or len(one) != len(other):
        head = one.rfind("\n", 0, head) + 1
    rest = shortest - head
    tail = _most(rest, lambda size: one[len(one) - size :] == other[len(other) - size :])
    if tail:
        begin = one.find("\n", len(one) - tail) + 1
        tail = len(one) - begin if begin else 0
    return head, tail


def _most(limit: int, holds: Callable[[int], bool]) -> int:
    """The largest number up to ``limit`` for which it holds; it holds for all smaller ones."""
    least = 0
    while least < limit:
        middle = (least + limit + 1) // 2
        least, limit = (middle, limit) if holds(middle) else (least, middle - 1)
    return least


def _ended(line: str) -> str:
    return line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


def split_lines(text: str) -> list[str]:
    """Lines with their ends; only a newline ends one, as in editors and git."""
    *lines, last = text.split("\n")
    ended = [f"{line}\n" for line in lines]
    return [*ended, last] if last else ended
