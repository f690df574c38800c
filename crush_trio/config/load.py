"""Loading the configuration: its layers, lowest to highest, merged into one (contract 8)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from crush_trio import limits
from crush_trio.config.document import read_document
from crush_trio.config.paths import WORKSPACE_FILES, extra_config_path, user_config_path
from crush_trio.config.schema import validated
from crush_trio.config.trust import split
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
    was there and does not count, as in ``crush.json: providers, mcp``.
    """

    data: dict[str, Any]
    sources: tuple[Source, ...] = ()
    warnings: tuple[str, ...] = ()
    inert: tuple[str, ...] = ()

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
        return _distinct(self.data.get("permissions", {}).get("allowed_tools", ()))

    @property
    def env_allow(self) -> tuple[str, ...]:
        """Names of further environment variables that tool processes get (contract 7)."""
        return _distinct(self.options.get("env_allow", ()))


def load_config(
    workspace: Path | None,
    *,
    environ: Mapping[str, str],
    user_config: Path | None = None,
) -> Config:
    """The configuration for ``workspace``, or for no workspace at all.

    Reads a few small files and blocks while it does; nothing is expanded or run.

    Args:
        workspace: Its files count as contract 7 allows for an untrusted directory.
        environ: Says where the user's files are.
        user_config: Takes the place of the user's file; may be missing.

    Raises:
        ConfigError: One sentence with file, path and expectation (G14).
    """
    layers = _Layers()
    user = user_config or user_config_path(environ)
    if user is not None:
        layers.add_trusted(user)
    if workspace is not None:
        for name in WORKSPACE_FILES:
            layers.add_untrusted(workspace / name, workspace)
    extra = extra_config_path(environ)
    if extra is not None and not layers.add_trusted(extra):
        raise ConfigError(f"{extra}: there is no such file; CRUSH_TRIO_CONFIG names it.")
    return layers.config()


class _Layers:
    """The layers read so far, merged."""

    def __init__(self) -> None:
        self._data: dict[str, Any] = {}
        self._sources: list[Source] = []
        self._warnings: list[str] = []
        self._inert: list[str] = []

    def add_trusted(self, path: Path) -> bool:
        """Lay a file of the user's over the rest; whether it exists."""
        document = read_document(path)
        if document is not None:
            self._add(document, path, trusted=True)
        return document is not None

    def add_untrusted(self, path: Path, workspace: Path) -> None:
        """Lay the part of a workspace's file that counts over the rest."""
        document = read_document(path)
        if document is None:
            return
        counted, inert = split(document, workspace, self._data)
        if inert:
            self._inert.append(f"{path.name}: {_listed(inert)}")
        self._add(counted, path, trusted=False)

    def _add(self, document: dict[str, Any], path: Path, *, trusted: bool) -> None:
        clean, unknown = validated(document, str(path))
        if unknown:
            names = _listed(name.removeprefix("$.") for name in unknown)
            self._warnings.append(f"{path}: unknown keys, kept without effect: {names}.")
        self._data = merged(self._data, clean)
        self._sources.append(Source(path, tuple(clean), trusted))

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
        return Config(self._data, tuple(self._sources), tuple(self._warnings), tuple(self._inert))


def merged(low: Any, high: Any) -> Any:
    """``high`` laid over ``low``: objects key by key, arrays joined, anything else replaced."""
    if isinstance(low, dict) and isinstance(high, dict):
        both = {key: merged(value, high[key]) for key, value in low.items() if key in high}
        return {**low, **high, **both}
    if isinstance(low, list) and isinstance(high, list):
        return [*low, *high]
    return high


def _listed(names: Iterable[str]) -> str:
    """Names joined by commas, the first `limits.CONFIG_NAMES` of them."""
    every = list(names)
    shown = ", ".join(every[: limits.CONFIG_NAMES])
    more = len(every) - limits.CONFIG_NAMES
    return f"{shown} and {more} more" if more > 0 else shown


def _distinct(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
