"""Loading the configuration: its layers, lowest to highest, merged into one (contract 8)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from crush_trio import limits
from crush_trio.config.document import read_document
from crush_trio.config.files import Identity, identity
from crush_trio.config.paths import (
    WORKSPACE_FILES,
    extra_config_path,
    machine_config_path,
    trust_path,
    user_config_path,
)
from crush_trio.config.schema import validated
from crush_trio.config.trust import Inert, digest, split
from crush_trio.config.trusted import Trust, TrustList, read_trust
from crush_trio.protocol.errors import ConfigError

CONTEXT_PATHS: Final = (
    "AGENTS.md",
    "AGENTS.local.md",
    "agents.md",
    "Agents.md",
    "CRUSH.md",
    "CRUSH.local.md",
    "Crush.md",
    "Crush.local.md",
    "crush.md",
    "crush.local.md",
    "CLAUDE.md",
    "CLAUDE.local.md",
    "GEMINI.md",
    "gemini.md",
    ".github/copilot-instructions.md",
    ".cursorrules",
    ".cursor/rules/",
)
"""Context files every workspace may have (CW 10.4); a trailing slash means a directory of them."""


@attrs.frozen
class Source:
    """A file that was read: its path, its top-level keys that count, and whose word it is."""

    path: Path
    keys: tuple[str, ...]
    trusted: bool


@attrs.frozen
class Config:
    """The merged configuration. ``data`` is shared: nobody changes it.

    ``warnings`` are whole sentences. ``inert`` names, per file of an untrusted workspace, what
    was there and does not count, as in ``crush.json: providers, mcp``; ``trust`` says why.
    """

    data: dict[str, Any]
    sources: tuple[Source, ...] = ()
    warnings: tuple[str, ...] = ()
    inert: tuple[str, ...] = ()
    trust: Trust = "unneeded"

    @property
    def notices(self) -> tuple[str, ...]:
        """What its user should know: what is unknown, and what does not count (contract 7)."""
        return (*self.warnings, *map(self._without_effect, self.inert))

    @property
    def inert_providers(self) -> tuple[str, ...]:
        """Those of the notices that are about providers."""
        return tuple(self._without_effect(each) for each in self.inert if "providers" in each)

    def _without_effect(self, named: str) -> str:
        why = (
            "they changed after this directory was trusted"
            if self.trust == "changed"
            else "this directory is not trusted"
        )
        return f"{named} have no effect: {why} (crush-trio config trust)."

    def model(self) -> str | None:
        """The chosen large model as ``provider/model``, or ``None``."""
        chosen = self.data.get("models", {}).get("large", {})
        return f"{chosen['provider']}/{chosen['model']}" if chosen.get("model") else None

    @property
    def providers(self) -> dict[str, Any]:
        """Configured providers by id, with templates unexpanded."""
        return dict(self.data.get("providers", {}))

    @property
    def options(self) -> dict[str, Any]:
        """The table ``options``."""
        return dict(self.data.get("options", {}))

    @property
    def tools(self) -> dict[str, Any]:
        """The table ``tools``: settings of single tools."""
        return dict(self.data.get("tools", {}))

    @property
    def disabled_tools(self) -> tuple[str, ...]:
        """Tools that no model is offered."""
        return _distinct(self.options.get("disabled_tools", ()))

    @property
    def context_paths(self) -> tuple[str, ...]:
        """Context files and directories: the usual ones, then the configured ones.

        Those of an untrusted workspace led inside it when they were loaded; a reader checks
        again, since symlinks change.
        """
        return _distinct((*CONTEXT_PATHS, *self.options.get("context_paths", ())))

    @property
    def allowed_tools(self) -> tuple[str, ...]:
        """Permission patterns that are allowed without asking."""
        return _distinct(self.permissions.get("allowed_tools", ()))

    @property
    def denied_tools(self) -> tuple[str, ...]:
        """Permission patterns that are forbidden, whatever allows them."""
        return _distinct(self.permissions.get("denied_tools", ()))

    @property
    def permissions(self) -> dict[str, Any]:
        """The table ``permissions``."""
        return dict(self.data.get("permissions", {}))

    @property
    def hooks(self) -> dict[str, list[dict[str, Any]]]:
        """The table ``hooks``: commands by event. Those of an untrusted workspace are not here."""
        return dict(self.data.get("hooks", {}))

    @property
    def env_allow(self) -> tuple[str, ...]:
        """Names of further environment variables that tool processes get (contract 7)."""
        return _distinct(self.options.get("env_allow", ()))


def load_config(
    workspace: Path | None,
    *,
    environ: Mapping[str, str],
    user_config: Path | None = None,
    data_dir: Path | None = None,
    instead: Mapping[Path, dict[str, Any]] | None = None,
) -> Config:
    """The configuration for ``workspace``, or for no workspace at all.

    Reads a few small files and blocks while it does; nothing is expanded or run.

    Args:
        workspace: Its files count in full if it is trusted, else as contract 7 allows.
        environ: Says where the user's files and the list of trusted directories are.
        user_config: Takes the place of the user's file; may be missing.
        data_dir: The server's data directory, with what was set over the API for the workspace.
        instead: Documents to take in place of what is in files of the user's.

    Raises:
        ConfigError: One sentence with file, path and expectation (G14).
    """
    layers = _Layers(instead or {})
    user = user_config or user_config_path(environ)
    if user is not None:
        layers.add_trusted(user)
    if workspace is not None:
        layers.add_workspace(workspace, read_trust(environ))
        if data_dir is not None:
            layers.add_trusted(machine_config_path(data_dir, workspace))
    extra = extra_config_path(environ)
    if extra is not None and not layers.add_trusted(extra):
        raise ConfigError(f"{extra}: there is no such file; CRUSH_TRIO_CONFIG names it.")
    return layers.config()


def fingerprint(
    workspace: Path, *, environ: Mapping[str, str], data_dir: Path | None = None
) -> tuple[Identity, ...]:
    """The state of every file that `load_config` would read; a few ``stat`` calls.

    Two equal ones mean that nothing was written in between.
    """
    files = [user_config_path(environ), trust_path(environ), extra_config_path(environ)]
    files += [workspace / name for name in WORKSPACE_FILES]
    if data_dir is not None:
        files.append(machine_config_path(data_dir, workspace))
    return tuple(None if path is None else identity(path) for path in files)


@attrs.frozen
class Review:
    """What trusting a directory is about: its inert parts, each with the name of its file.

    ``state`` is the answer for exactly these parts, whose digest is ``digest``.
    """

    directory: Path
    parts: tuple[tuple[str, Inert], ...]
    digest: str
    state: Trust


def review(workspace: Path, *, environ: Mapping[str, str]) -> Review:
    """The inert parts of a directory as they are now; blocking.

    Raises:
        ConfigError: One of its files or of the user's is wrong.
    """
    layers = _Layers({})
    user = user_config_path(environ)
    if user is not None:
        layers.add_trusted(user)
    return layers.add_workspace(workspace, read_trust(environ))


class _Layers:
    """The layers read so far, merged; some documents stand in for what is in their files."""

    def __init__(self, instead: Mapping[Path, dict[str, Any]]) -> None:
        self._instead = instead
        self._data: dict[str, Any] = {}
        self._sources: list[Source] = []
        self._warnings: list[str] = []
        self._inert: list[str] = []
        self._trust: Trust = "unneeded"

    def add_trusted(self, path: Path) -> bool:
        """Lay a file of the user's over the rest; whether it exists."""
        document = self._instead[path] if path in self._instead else read_document(path)
        if document is not None:
            self._add(document, path, trusted=True)
        return document is not None

    def add_workspace(self, workspace: Path, trusted: TrustList) -> Review:
        """Lay the files of a workspace over the rest.

        Each is read once, and the digest is made of what was read then: a file that changes
        meanwhile counts as it was when it was trusted, or not at all.
        """
        found = {name: read_document(workspace / name) for name in WORKSPACE_FILES}
        documents = {name: each for name, each in found.items() if each is not None}
        before = self._data, self._sources, self._warnings
        parts = []
        for name, document in documents.items():
            counted, inert = split(document, workspace, self._data)
            parts += [(name, part) for part in inert]
            self._add(counted, workspace / name, trusted=False)
        whole = digest(parts)
        self._trust = trusted.state(workspace, whole) if parts else "unneeded"
        if self._trust == "trusted":
            self._data, self._sources, self._warnings = before
            for name, document in documents.items():
                self._add(document, workspace / name, trusted=True)
        elif parts:
            self._name_inert(parts, trusted)
        return Review(workspace, tuple(parts), whole, self._trust)

    def _name_inert(self, parts: list[tuple[str, Inert]], trusted: TrustList) -> None:
        for name in WORKSPACE_FILES:
            inert = [part for file, part in parts if file == name]
            if inert:
                names = [part.name for part in inert[: limits.CONFIG_NAMES]]
                self._inert.append(f"{name}: {_listed(names, len(inert))}")
        if trusted.problem:
            self._warnings = [*self._warnings, trusted.problem]

    def _add(self, document: dict[str, Any], path: Path, *, trusted: bool) -> None:
        clean, unknown = validated(document, str(path))
        if unknown:
            names = _listed([name.removeprefix("$.") for name in unknown], len(unknown))
            warning = f"{path}: unknown keys, kept without effect: {names}."
            self._warnings = [*self._warnings, warning]
        self._data = merged(self._data, clean)
        self._sources = [*self._sources, Source(path, tuple(clean), trusted)]

    def config(self) -> Config:
        """Everything so far.

        Raises:
            ConfigError: A model slot is half filled.
        """
        for slot, chosen in self._data.get("models", {}).items():
            if slot in ("large", "small") and bool(chosen.get("model")) != bool(
                chosen.get("provider")
            ):
                files = ", ".join(str(s.path) for s in self._sources if "models" in s.keys)
                raise ConfigError(f"{files}: $.models.{slot}: expected both provider and model.")
        return Config(
            self._data,
            tuple(self._sources),
            tuple(self._warnings),
            tuple(self._inert),
            self._trust,
        )


def merged(low: Any, high: Any) -> Any:
    """``high`` laid over ``low``: objects key by key, arrays joined, anything else replaced."""
    if isinstance(low, dict) and isinstance(high, dict):
        both = {key: merged(value, high[key]) for key, value in low.items() if key in high}
        return {**low, **high, **both}
    if isinstance(low, list) and isinstance(high, list):
        return [*low, *high]
    return high


def _listed(names: Sequence[str], number: int) -> str:
    """The first `limits.CONFIG_NAMES` of ``number`` names, joined by commas; the rest counted."""
    shown = ", ".join(names[: limits.CONFIG_NAMES])
    more = number - limits.CONFIG_NAMES
    return f"{shown} and {more} more" if more > 0 else shown


def _distinct(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
