"""Reads the text that tools answer with (CW 7.3, 7.4); what it does not know it leaves out."""

from __future__ import annotations

import re

import attrs

from crush_trio.models.scout.plan import Answer

GENERATED = frozenset({"__pycache__", "node_modules", ".venv", "venv", ".tox"})


@attrs.frozen
class Hit:
    """One matching line; the path is relative to the workspace."""

    path: str
    line: int
    text: str


def shell_output(answer: Answer) -> str:
    """What a command wrote, without the directory that ``bash`` adds."""
    text = re.sub(r"\n*<cwd>.*</cwd>\s*$", "", answer.text).strip("\n")
    return "" if text == "no output" else text


def shell_failed(answer: Answer) -> bool:
    """Whether a command was refused, or ended with another code than 0."""
    return not answer.ok or re.search(r"^Exit code \d+$", answer.text, re.MULTILINE) is not None


def lines_of(view: Answer) -> list[tuple[int, str]]:
    """The numbered lines of a viewed file."""
    found = re.findall(r"^ *(\d+)\|(.*)$", view.text, re.MULTILINE) if view.ok else []
    return [(int(number), text) for number, text in found]


def tree_paths(tree: Answer) -> list[str]:
    """The paths of a listing, relative to its root; directories end with ``/``."""
    parents: list[str] = []
    paths: list[str] = []
    entries = re.findall(r"^( *)- (.+)$", tree.text, re.MULTILINE)
    for indent, name in entries[1:]:  # the first one is the root itself
        del parents[len(indent) // 2 - 1 :]
        paths.append("".join(parents) + name)
        if name.endswith("/"):
            parents.append(name)
    return paths


def hits_of(grep: Answer) -> list[Hit]:
    """The matches of a search, in its order."""
    hits: list[Hit] = []
    path = ""
    for line in grep.text.splitlines() if grep.ok else ():
        if match := re.match(r"  Line (\d+)(?:, Char \d+)?: ?(.*)$", line):
            hits.append(Hit(path, int(match[1]), match[2].strip()))
        elif line.endswith(":"):
            path = line[:-1].removeprefix(f"{grep.root}/")
    return hits


def paths_of(glob: Answer) -> list[str]:
    """The paths a pattern has matched, in its order, relative to the workspace.

    What lies in a directory of made or installed files is left out.
    """
    lines = [line for line in glob.text.splitlines() if line.startswith("/")] if glob.ok else []
    paths = [line.removeprefix(f"{glob.root}/") for line in lines]
    return [path for path in paths if not is_generated(path)]


def is_generated(path: str) -> bool:
    """Whether the path lies in a directory of made or installed files."""
    return not GENERATED.isdisjoint(path.split("/"))


def at_least(found: Answer) -> str:
    """``at least `` if a search was cut, else nothing."""
    return "at least " if found.metadata.get("truncated") else ""
