"""Which keys of a configuration file count when its directory is not trusted (contract 7)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from crush_trio import limits
from crush_trio.config.paths import is_inside
from crush_trio.config.shapes import quoted, step_into

_TOP: Final = frozenset({"$schema", "models", "tools"})
_OPTIONS: Final = frozenset(
    {
        "context_paths",
        "disabled_tools",
        "disable_auto_summarize",
        "attribution",
        "initialize_as",
        "progress",
        "tui",
    }
)
_UNCHECKED: Final = "provider_options"


@attrs.frozen
class Inert:
    """A part of a workspace's file that does not count until the directory is trusted.

    Args:
        keys: The way to it from the top of the file, as written there.
        value: What stands there.
        note: Which part of that is meant, if it is not the whole.
    """

    keys: tuple[str, ...]
    value: Any
    note: str = ""

    @property
    def name(self) -> str:
        """Its path for messages: bounded, and safe for a terminal."""
        path = ""
        for key in self.keys:
            path = step_into(path, key)
        return path.removeprefix(".") + self.note


def digest(parts: Sequence[tuple[str, Inert]]) -> str:
    """SHA-256 over the inert parts of a workspace's files, each with the name of its file.

    The order of an object's keys says nothing and changes nothing; the order of an array does,
    and so do a part's place and its file.
    """
    inert = sorted(parts, key=lambda each: (each[0], each[1].keys, each[1].note))
    written = [[file, part.keys, part.note, part.value] for file, part in inert]
    text = json.dumps(written, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def split(
    document: dict[str, Any], workspace: Path, below: dict[str, Any]
) -> tuple[dict[str, Any], tuple[Inert, ...]]:
    """The part of an untrusted file that counts, and what is inert.

    Wrong types in the part that counts are left for validation; the inert part is never looked
    into.

    Args:
        document: A parsed file of the workspace.
        workspace: Its directory; named paths must stay inside.
        below: The configuration that the file is laid over.
    """
    counted = {key: value for key, value in document.items() if key in _TOP}
    inert = [
        Inert((key,), value)
        for key, value in document.items()
        if key not in _TOP and key != "options"
    ]
    if "models" in counted:
        counted["models"] = _models(counted["models"], below, inert)
    options = document.get("options")
    if isinstance(options, dict):
        kept = {key: value for key, value in options.items() if key in _OPTIONS}
        inert += [
            Inert(("options", key), value) for key, value in options.items() if key not in _OPTIONS
        ]
        counted["options"] = _inside(kept, workspace, inert)
    elif options is not None:
        counted["options"] = options
    return {key: counted[key] for key in document if key in counted}, tuple(inert)


def _models(models: Any, below: dict[str, Any], inert: list[Inert]) -> Any:
    """Without slots that would play a script: only the command line may name one (contract 9).

    A script makes tool calls exactly as written, so a repository must not bring its own. That
    holds too when the file only replaces the path of a script that the user has chosen. Nor do
    ``provider_options`` count: they go into each request as they are, over its prompt and tools,
    and providers call a tool at whatever address they name, with the conversation in hand.
    """
    if not isinstance(models, dict):
        return models
    chosen = below.get("models", {})
    kept: dict[str, Any] = {}
    for slot, selected in models.items():
        provider = chosen.get(slot, {}).get("provider") if slot in chosen else None
        if isinstance(selected, dict):
            provider = selected.get("provider") or provider
        if provider == "script":
            inert.append(Inert(("models", slot), selected))
            continue
        kept[slot] = selected
        if isinstance(selected, dict) and _UNCHECKED in selected:
            inert.append(Inert(("models", slot, _UNCHECKED), selected[_UNCHECKED]))
            kept[slot] = {key: value for key, value in selected.items() if key != _UNCHECKED}
    return kept


def _inside(options: dict[str, Any], workspace: Path, inert: list[Inert]) -> dict[str, Any]:
    """Without paths that lead out of the workspace."""
    kept = dict(options)
    paths = kept.get("context_paths")
    if isinstance(paths, list):
        kept["context_paths"] = []
        place = ("options", "context_paths")
        for path in paths[: limits.CONFIG_PATHS]:
            if isinstance(path, str) and not is_inside(workspace, path):
                inert.append(Inert(place, path, f" {quoted(path)}"))
            else:
                kept["context_paths"].append(path)
        if len(paths) > limits.CONFIG_PATHS:
            more = paths[limits.CONFIG_PATHS :]
            inert.append(Inert(place, more, f" after the first {limits.CONFIG_PATHS}"))
    target = kept.get("initialize_as")
    if isinstance(target, str) and not is_inside(workspace, target):
        del kept["initialize_as"]
        inert.append(Inert(("options", "initialize_as"), target))
    return kept
