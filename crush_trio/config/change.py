"""Changing a configuration file by program (CW 2.7): checked first, then written as a whole."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import attrs

from crush_trio import limits
from crush_trio.config.document import check_value, read_document
from crush_trio.config.files import identity, locked, write_document
from crush_trio.config.load import load_config
from crush_trio.config.paths import machine_config_path, user_config_path
from crush_trio.config.schema import validated
from crush_trio.config.shapes import step_into
from crush_trio.config.templates import templates, with_commands
from crush_trio.protocol.errors import ConfigError

Change: TypeAlias = Callable[[dict[str, Any]], None]
"""Changes a document in place."""


def keys_of(dotted: str) -> tuple[str, ...]:
    r"""The keys that a dotted path names; ``\.`` is a dot inside a key, ``\\`` a backslash.

    Raises:
        ConfigError: A key is empty, or the path ends in the middle of an escape.
    """
    keys, key, escaped = [], "", False
    for char in dotted:
        if escaped or char not in "\\.":
            key += char
            escaped = False
        elif char == "\\":
            escaped = True
        else:
            keys.append(key)
            key = ""
    keys.append(key)
    if escaped or not all(keys):
        raise ConfigError("`key` must be names joined by dots, as in options.tui.compact_mode.")
    if len(keys) > limits.CONFIG_DEPTH:
        raise ConfigError(f"`key` must have at most {limits.CONFIG_DEPTH} names.")
    return tuple(keys)


def setting(keys: Sequence[str], value: Any) -> Change:
    """The change that puts ``value`` at ``keys``; objects on the way are made."""

    def change(document: dict[str, Any]) -> None:
        _parent(document, keys, make=True)[keys[-1]] = value

    return change


def removing(keys: Sequence[str]) -> Change:
    """The change that removes what is at ``keys``, if anything is."""

    def change(document: dict[str, Any]) -> None:
        _parent(document, keys, make=False).pop(keys[-1], None)

    return change


def _parent(document: dict[str, Any], keys: Sequence[str], *, make: bool) -> dict[str, Any]:
    place, path = document, "$"
    for key in keys[:-1]:
        path = step_into(path, key)
        below = place.get(key)
        if below is None:
            below = {}
            if make:
                place[key] = below
        if not isinstance(below, dict):
            raise ConfigError(f"{path}: expected an object, since `key` leads into it.")
        place = below
    return place


@attrs.frozen
class Files:
    """The files that changes to one workspace's configuration go to."""

    workspace: Path
    data_dir: Path
    environ: Mapping[str, str]

    def of(self, scope: int) -> Path:
        """The file of a scope: 0 is the user's own, 1 the workspace's in the data directory.

        Raises:
            ConfigError: There is no such scope, or no home for the user's file.
        """
        if scope == 1:
            return machine_config_path(self.data_dir, self.workspace)
        if scope != 0:
            raise ConfigError("`scope` must be 0 (the user's file) or 1 (the workspace's).")
        user = user_config_path(self.environ)
        if user is None:
            raise ConfigError("There is no place for the user's file: HOME is not set.")
        return user

    def change(self, scope: int, changes: Sequence[Change]) -> Path:
        """Make all ``changes`` to the file of ``scope``, or none; the file. Blocks.

        Unknown keys stay. The whole configuration of the workspace is checked with the new file
        in place of the old one.

        Raises:
            ConfigError: What would come of it is wrong, or it cannot be written; nothing changed.
        """
        path = self.of(scope)
        with locked(path):
            for _ in range(limits.CONFIG_WRITE_TRIES):
                before = identity(path)
                old = read_document(path) or {}
                new = copy.deepcopy(old)
                for change in changes:
                    change(new)
                if new == old:
                    return path
                self._check(old, new, path)
                if identity(path) == before:  # no editor was faster, which knows no lock
                    write_document(path, new)
                    return path
        raise ConfigError(f"{path}: somebody else is changing it; try again later.")

    def _check(self, old: dict[str, Any], new: dict[str, Any], path: Path) -> None:
        check_value(new, path)
        was, clean = _valid_part(old), validated(new, str(path))[0]
        before = templates(was)
        fresh = {
            place: text for place, text in templates(clean).items() if before.get(place) != text
        }
        for place in with_commands(fresh, str(path)):
            raise ConfigError(f"{path}: {place}: a $(command) cannot be set over the API.")
        if clean.get("hooks") != was.get("hooks"):
            raise ConfigError(f"{path}: $.hooks: hooks cannot be set over the API.")
        whole = load_config(
            self.workspace, environ=self.environ, data_dir=self.data_dir, instead={path: new}
        )
        for slot, selected in clean.get("models", {}).items():
            is_new = selected != was.get("models", {}).get(slot)
            # Also a new path alone, for a script that the user chose in another file.
            if is_new and whole.data["models"][slot].get("provider") == "script":
                raise ConfigError(f"{path}: $.models.{slot}: a script cannot be set over the API.")


def _valid_part(document: dict[str, Any]) -> dict[str, Any]:
    """The document, or nothing of it: who repairs a wrong file is checked as if it were new."""
    try:
        return validated(document, "")[0]
    except ConfigError:
        return {}
