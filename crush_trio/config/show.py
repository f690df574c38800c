"""What ``config show`` and ``config check`` print: configuration, limits, and their findings."""

from __future__ import annotations

import importlib.resources
import io
import json
import re
import tokenize
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from crush_trio import limits
from crush_trio.config.keys import environment_keys, providers_without_key
from crush_trio.config.load import Config, load_config
from crush_trio.config.paths import WORKSPACE_FILES, extra_config_path, user_config_path
from crush_trio.config.public import public
from crush_trio.config.schema import NO_EFFECT
from crush_trio.protocol.errors import ConfigError

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
        "limits": {line.name: line.value for line in limits_table()},
    }


def show_text(config: Config, *, data_directory: Path) -> str:
    """The same for people, with the comment of each limit."""
    lines = ["# files, lowest first"]
    lines += [_source_line(str(s.path), s.keys, s.trusted) for s in config.sources] or ["none"]
    lines += [f"warning: {text}" for text in config.warnings]
    lines += [_inert_line(text) for text in config.inert]
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


@attrs.frozen
class Check:
    """What ``config check`` found: one finding per line, and whether all files can be used."""

    ok: bool
    lines: tuple[str, ...]


def check(
    workspace: Path | None, *, environ: Mapping[str, str], user_config: Path | None = None
) -> Check:
    """Read the configuration as a run would, and say what was found; never raises `ConfigError`."""
    try:
        config = load_config(workspace, environ=environ, user_config=user_config)
        without_key = providers_without_key(config, environ)
    except ConfigError as exc:
        return Check(False, (f"error: {exc}",))
    read = {source.path: source for source in config.sources}
    lines = [
        _source_line(str(path), read[path].keys, read[path].trusted)
        if path in read
        else f"absent: {path}"
        for path in _candidates(workspace, environ, user_config)
    ]
    lines += [f"warning: {text}" for text in config.warnings]
    lines += [_inert_line(text) for text in config.inert]
    unused = [".".join(keys) for keys in NO_EFFECT if _present(config.data, keys)]
    if unused:
        lines.append(f"note: without effect in this version: {', '.join(unused)}")
    lines += [f"error: provider {name} has no key." for name in without_key]
    lines += [f"key: {name} for {who}" for who, name in environment_keys(environ).items()]
    lines.append(f"model: {config.model() or 'none configured'}")
    return Check(not without_key, tuple(lines))


def _candidates(
    workspace: Path | None, environ: Mapping[str, str], user_config: Path | None
) -> list[Path]:
    user = user_config or user_config_path(environ)
    inside = [workspace / name for name in WORKSPACE_FILES] if workspace is not None else []
    found = [user, *inside, extra_config_path(environ)]
    return [path for path in found if path is not None]


def _source_line(path: str, keys: tuple[str, ...], trusted: bool) -> str:
    whose = "" if trusted else " (workspace, not trusted)"
    return f"read: {path}{whose}: {', '.join(keys) or 'no keys'}"


def _inert_line(text: str) -> str:
    return f"inert: {text} (the workspace is not trusted)"


def _present(data: Any, keys: tuple[str, ...]) -> bool:
    for key in keys:
        if not isinstance(data, dict) or key not in data:
            return False
        data = data[key]
    return True
