"""What ``config show`` prints: the configuration, where it came from, and every limit."""

from __future__ import annotations

import importlib.resources
import io
import json
import re
import tokenize
from pathlib import Path
from typing import Any

import attrs

from crush_trio import limits
from crush_trio.config.check import inert_text, source_text
from crush_trio.config.load import Config
from crush_trio.config.public import public

_CONSTANT = re.compile(r"([A-Z][A-Z0-9_]*) = ")
_SECTION = re.compile(r"# --- (.*?) -+$")


@attrs.frozen
class LimitLine:
    """A number of `crush_trio.limits`: its section there and what happens at the bound."""

    name: str
    value: int | float
    section: str
    comment: str


def limits_table() -> tuple[LimitLine, ...]:
    """Every number of `crush_trio.limits`, in its order, with the comment beside it."""
    source = importlib.resources.files("crush_trio").joinpath("limits.py").read_text("utf-8")
    comments = {
        token.start[0]: token.string
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    section, found = "", []
    for number, line in enumerate(source.splitlines(), start=1):
        heading, constant = _SECTION.match(line), _CONSTANT.match(line)
        if heading:
            section = heading.group(1)
        elif constant:
            comment = comments.get(number, "").removeprefix("#").strip()
            value = getattr(limits, constant.group(1))
            found.append(LimitLine(constant.group(1), value, section, comment))
    return tuple(found)


def show_json(config: Config, *, data_directory: Path) -> dict[str, Any]:
    """The effective configuration, where it came from, and every limit, as one JSON object."""
    return {
        "config": public(config, data_directory=data_directory),
        "sources": [
            {"path": str(source.path), "keys": list(source.keys), "trusted": source.trusted}
            for source in config.sources
        ],
        "warnings": list(config.warnings),
        "inert": list(config.inert),
        "trust": config.trust,
        "limits": {line.name: line.value for line in limits_table()},
    }


def show_text(config: Config, *, data_directory: Path) -> str:
    """The same for people, with the comment of each limit."""
    lines = ["# files, lowest first"]
    lines += [f"read: {source_text(str(s.path), s.keys, s.trusted)}" for s in config.sources] or [
        "none"
    ]
    lines += [f"warning: {text}" for text in config.warnings]
    lines += [f"inert: {inert_text(config, text)}" for text in config.inert]
    shown = public(config, data_directory=data_directory)
    lines += ["", "# configuration", json.dumps(shown, indent=2, ensure_ascii=False)]
    section = None
    for line in limits_table():
        if line.section != section:
            section = line.section
            lines += ["", f"# limits: {section}"]
        lines.append(
            f"{line.name} = {line.value}" + (f"  # {line.comment}" if line.comment else "")
        )
    return "\n".join(lines) + "\n"
