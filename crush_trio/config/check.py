"""What ``config check`` finds: everything that can be said without running or asking anything."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from crush_trio.config.access import check_url
from crush_trio.config.expand import expand, has_command
from crush_trio.config.hook_programs import missing_programs
from crush_trio.config.keys import USUAL, Usual, environment_keys, missing_key
from crush_trio.config.load import Config, load_config
from crush_trio.config.paths import (
    WORKSPACE_FILES,
    extra_config_path,
    machine_config_path,
    user_config_path,
)
from crush_trio.config.schema import NO_EFFECT
from crush_trio.config.shapes import nearest, quoted
from crush_trio.config.templates import templates
from crush_trio.protocol.errors import ConfigError

BUILT_IN: Final = ("offline", "script", "ollama", "lmstudio", "llamacpp", "vllm")
"""Providers that need no configuration and stand in no catalogue."""


@attrs.frozen
class Finding:
    """One line: ``level`` is its first word; only an ``error`` keeps the configuration unused."""

    level: str
    text: str


@attrs.frozen
class Check:
    """What was found, and whether the configuration can be used."""

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Nothing is an error."""
        return all(finding.level != "error" for finding in self.findings)

    @property
    def lines(self) -> tuple[str, ...]:
        """The findings for people."""
        return tuple(f"{finding.level}: {finding.text}" for finding in self.findings)


def check(
    workspace: Path | None,
    *,
    environ: Mapping[str, str],
    user_config: Path | None = None,
    data_dir: Path | None = None,
    usual: Usual = USUAL,
    rule: Callable[[str], tuple[str, str] | None] = lambda _pattern: None,
) -> Check:
    """Read the configuration as a run would, and say what was found; never raises `ConfigError`.

    No ``$(command)`` is run and no provider is asked. ``usual`` are the providers that are known
    without being configured, with the variables that usually hold their keys. ``rule`` says what
    is wrong with a permission pattern: a finding's level and text.
    """
    try:
        config = load_config(workspace, environ=environ, user_config=user_config, data_dir=data_dir)
    except ConfigError as exc:
        return Check((Finding("error", str(exc)),))
    machine = machine_config_path(data_dir, workspace) if data_dir and workspace else None
    return Check(
        (
            *_files(config, workspace, environ, user_config, machine),
            *_said(config),
            *_rules(config, rule),
            *_templates(config, environ),
            *_providers(config, environ, usual),
            *_models(config, environ, usual),
            *_ca_file(config),
            *(
                Finding("warning", f"{text}.")
                for text in missing_programs(config.hooks, workspace, environ)
            ),
            *(
                Finding("key", f"{name} for {who}")
                for who, name in environment_keys(environ, usual).items()
            ),
            Finding("model", config.model() or "none configured"),
        )
    )


def _files(
    config: Config,
    workspace: Path | None,
    environ: Mapping[str, str],
    user_config: Path | None,
    machine: Path | None,
) -> Iterator[Finding]:
    inside = [workspace / name for name in WORKSPACE_FILES] if workspace is not None else []
    user = user_config or user_config_path(environ)
    read = {source.path: source for source in config.sources}
    for path in (user, *inside, machine, extra_config_path(environ)):
        if path in read:
            yield Finding("read", source_text(str(path), read[path].keys, read[path].trusted))
        elif path is not None and path != machine:
            yield Finding("absent", str(path))


def source_text(path: str, keys: tuple[str, ...], trusted: bool) -> str:
    """A file that was read, and what of it counts."""
    whose = "" if trusted else " (workspace, not trusted)"
    return f"{path}{whose}: {', '.join(keys) or 'no keys'}"


def inert_text(config: Config, named: str) -> str:
    """What does not count in an untrusted directory, and why."""
    if config.trust == "changed":
        return f"{named} (changed after the workspace was trusted)"
    return f"{named} (the workspace is not trusted)"


def _rules(config: Config, rule: Callable[[str], tuple[str, str] | None]) -> Iterator[Finding]:
    for key, patterns in (
        ("allowed_tools", config.allowed_tools),
        ("denied_tools", config.denied_tools),
    ):
        for level, text in filter(None, map(rule, patterns)):
            yield Finding(level, f"$.permissions.{key}: {text}")


def _said(config: Config) -> Iterator[Finding]:
    for text in config.warnings:
        yield Finding("warning", text)
    for text in config.inert:
        yield Finding("inert", inert_text(config, text))
    unused = [".".join(keys) for keys in NO_EFFECT if _present(config.data, keys)]
    if unused:
        yield Finding("note", f"without effect in this version: {', '.join(unused)}")


def _present(data: Any, keys: tuple[str, ...]) -> bool:
    """Whether something is at ``keys``; a ``*`` stands for any key."""
    for index, key in enumerate(keys):
        if not isinstance(data, dict):
            return False
        if key == "*":
            return any(_present(each, keys[index + 1 :]) for each in data.values())
        if key not in data:
            return False
        data = data[key]
    return True


def _templates(config: Config, environ: Mapping[str, str]) -> Iterator[Finding]:
    for path, template in templates(config.data).items():
        try:
            if has_command(template, where=path):
                yield Finding("not run", f"the $(command) of {path}")
        except ConfigError as exc:
            yield Finding("error", str(exc))


def _providers(config: Config, environ: Mapping[str, str], usual: Usual) -> Iterator[Finding]:
    for name, provider in config.providers.items():
        if provider.get("disable"):
            continue
        if not name or "/" in name:
            yield Finding(
                "warning", f"the provider {quoted(name)} cannot be named in PROVIDER/MODEL"
            )
        try:
            problem = missing_key(name, provider, environ, usual)
            if problem:
                yield Finding("error", f"provider {name} has no key: {problem}.")
            _check_address(name, provider, environ)
        except ConfigError as exc:
            yield Finding("error", str(exc))


def _check_address(name: str, provider: Mapping[str, Any], environ: Mapping[str, str]) -> None:
    template, where = provider.get("base_url", ""), f"providers.{name}.base_url"
    if not template or has_command(template, where=where):
        return
    address = expand(template, environ, where=where).strip()
    if not address:
        raise ConfigError(f"{where}: expands to nothing; set the variable it names.")
    check_url(address, where)


def _models(config: Config, environ: Mapping[str, str], usual: Usual) -> Iterator[Finding]:
    given = () if config.options.get("disable_default_providers") else usual
    known = {*BUILT_IN, *given, *config.providers}
    for slot in ("large", "small"):
        name = config.data.get("models", {}).get(slot, {}).get("provider")
        if not name:
            continue
        where = f"models.{slot}.provider: {quoted(name)}"
        if name not in known:
            meant = nearest(name, known)
            trust = ", or trust this directory" if config.inert else ""
            hint = f"did you mean {meant}?" if meant else f"configure it under providers{trust}."
            yield Finding("error", f"{where} is not a provider; {hint}")
        elif config.providers.get(name, {}).get("disable"):
            yield Finding("error", f"{where} is disabled.")
        elif name not in config.providers:
            problem = missing_key(name, {}, environ, usual)
            if problem:
                yield Finding("error", f"{where} has no key: {problem}.")


def _ca_file(config: Config) -> Iterator[Finding]:
    named = config.options.get("ca_file", "")
    if named and not (os.path.isabs(named) and os.access(named, os.R_OK)):
        text = "options.ca_file: expected the absolute path of a file that can be read."
        yield Finding("error", text)
