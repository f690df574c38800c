"""Reads the text that tools answer with (CW 7.3, 7.4); what it does not know it leaves out."""

from __future__ import annotations

import re

import attrs
import orjson

from crush_trio.models.scout.plan import Answer
from crush_trio.protocol.messages import ToolResultPart


@attrs.frozen
class Hit:
    """One matching line."""

    path: str
    line: int
    text: str


def answer(result: ToolResultPart) -> Answer:
    """The stored result of a call."""
    try:
        metadata = orjson.loads(result.metadata) if result.metadata else {}
    except orjson.JSONDecodeError:
        metadata = {}
    return Answer(not result.is_error, result.content, metadata if type(metadata) is dict else {})


def shell_output(text: str) -> str:
    """What a command wrote, without the directory that ``bash`` adds."""
    return re.sub(r"\n*<cwd>.*</cwd>\s*$", "", text, flags=re.DOTALL).strip("\n")


def shell_failed(answer: Answer) -> bool:
    """Whether a command was refused, or ended with another code than 0."""
    return not answer.ok or re.search(r"^Exit code [1-9]", answer.text, re.MULTILINE) is not None


def lines_of(view: str) -> list[tuple[int, str]]:
    """The numbered lines of a viewed file."""
    found = re.findall(r"^ *(\d+)\|(.*)$", view, re.MULTILINE)
    return [(int(number), text) for number, text in found]


def file_text(view: str) -> str:
    """The viewed file's text without line numbers."""
    return "\n".join(text for _, text in lines_of(view))


def tree_paths(tree: str) -> list[str]:
    """The paths of a listing, relative to its root; directories end with ``/``."""
    parents: list[str] = []
    paths: list[str] = []
    base: int | None = None
    for indent, name in re.findall(r"^( *)- (.+)$", tree, re.MULTILINE):
        if base is None:  # the first entry is the root itself
            base = len(indent)
            continue
        depth = max(0, (len(indent) - base) // 2 - 1)
        del parents[depth:]
        paths.append("".join(parents) + name)
        if name.endswith("/"):
            parents.append(name)
    return paths


def hits_of(grep: str) -> list[Hit]:
    """The matches of a search, in its order."""
    hits: list[Hit] = []
    path = ""
    for line in grep.splitlines():
        if match := re.match(r"^\s+(?:Line )?(\d+)(?:, Char \d+)?[:|] ?(.*)$", line):
            hits.append(Hit(path, int(match[1]), match[2].strip()))
        elif line.endswith(":") and not line.startswith(" "):
            path = line[:-1]
    return hits


def paths_of(glob: str) -> list[str]:
    """The paths a pattern has matched, in its order."""
    lines = (line.strip() for line in glob.splitlines())
    return [
        line for line in lines if line and not line.startswith(("(", "No files", "Results are"))
    ]
