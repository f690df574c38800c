"""What manifests say of a project: its name, its purpose, how it is started and tested."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from typing import Any, Final

import attrs
import orjson


@attrs.define
class Facts:
    """What one manifest says; empty where it is silent. All texts are Markdown."""

    kind: str
    tests: list[str]
    name: str = ""
    version: str = ""
    about: str = ""
    starts: list[str] = attrs.field(factory=list)


def read_manifest(file: str, text: str) -> Facts:
    """The facts in the manifest called ``file`` (a key of `MANIFESTS`).

    Of a manifest that cannot be parsed (it may be cut) only the kind is known.
    """
    kind, tests, fill = MANIFESTS[file]
    facts, usual = Facts(kind, []), [tests] if tests else []
    try:
        fill(facts, text)
    # TOML and JSON errors are ValueErrors; the others come from values of an unexpected type.
    except (ValueError, AttributeError, TypeError, KeyError):
        return Facts(kind, usual)
    facts.tests = facts.tests or usual
    return facts


def _describe(facts: Facts, data: dict[str, Any]) -> None:
    facts.name, facts.about, facts.version = (
        value if isinstance(value := data.get(key, ""), str) else ""
        for key in ("name", "description", "version")
    )


def _commands(table: dict[str, str]) -> list[str]:
    return [f"`{name}` → `{target}`" for name, target in table.items()]


def _pyproject(facts: Facts, text: str) -> None:
    data = tomllib.loads(text)
    tool = data.get("tool", {})
    project = data.get("project") or tool.get("poetry") or {}
    _describe(facts, project)
    facts.starts = _commands(project.get("scripts", {}) | project.get("gui-scripts", {}))
    runners = {"pytest": "python -m pytest", "tox": "tox", "nox": "nox"}
    facts.tests = [run for name, run in runners.items() if name in tool]


def _setup_cfg(facts: Facts, text: str) -> None:
    _patterns(name=r"^name *= *(.+)$", about=r"^description *= *(.+)$")(facts, text)
    scripts = re.search(r"^console_scripts *=\s*\n((?:[ \t]+.+\n?)+)", text, re.MULTILINE)
    pairs = re.findall(r"([\w.-]+) *= *(\S+)", scripts[1]) if scripts else []
    facts.starts = _commands(dict(pairs))
    facts.tests = ["python -m pytest"] if "[tool:pytest]" in text else []


def _package_json(facts: Facts, text: str) -> None:
    data = orjson.loads(text)
    _describe(facts, data)
    commands = data.get("bin", {})
    facts.starts = _commands({facts.name: commands} if isinstance(commands, str) else commands)
    facts.starts += [f"`{data[key]}` ({key})" for key in ("main", "module") if data.get(key)]
    scripts = data.get("scripts", {})
    facts.starts += [f"`npm run {name}`" for name in ("start", "dev", "build") if name in scripts]
    facts.tests = ["npm test"] if "test" in scripts else []


def _cargo(facts: Facts, text: str) -> None:
    data = tomllib.loads(text)
    _describe(facts, data.get("package", {}))
    facts.starts = [f"`cargo run --bin {entry['name']}`" for entry in data.get("bin", [])]
    if members := data.get("workspace", {}).get("members"):
        facts.about = facts.about or f"A workspace of {', '.join(members)}."


def _makefile(facts: Facts, text: str) -> None:
    targets = re.findall(r"^((?:test|check)[\w-]*)[ \t]*:(?!=)", text, re.MULTILINE)
    facts.tests = [f"make {target}" for target in sorted(set(targets), key=len)[:2]]


def _patterns(**wanted: str) -> Callable[[Facts, str], None]:
    """Fills each field from the first match of its pattern."""

    def fill(facts: Facts, text: str) -> None:
        for field, pattern in wanted.items():
            if match := re.search(pattern, text, re.MULTILINE):
                setattr(facts, field, match[1].strip())

    return fill


_SETUP = _patterns(name=r"\bname=[\"']([^\"'\n]+)", about=r"\bdescription=[\s(]*[\"']([^\"'\n]+)")
_POM = _patterns(name=r"^(?: {2,4}|\t)<artifactId>(.+?)</", about=r"<description>\s*(.+?)\s*</")
MANIFESTS: Final[dict[str, tuple[str, str, Callable[[Facts, str], None]]]] = {
    "pyproject.toml": ("Python", "", _pyproject),
    "setup.cfg": ("Python", "", _setup_cfg),
    "setup.py": ("Python", "", _SETUP),
    "package.json": ("JavaScript", "", _package_json),
    "Cargo.toml": ("Rust", "cargo test", _cargo),
    "go.mod": ("Go", "go test ./...", _patterns(name=r"^module[ \t]+(\S+)")),
    "pom.xml": ("Java (Maven)", "mvn test", _POM),
    "build.gradle": ("Java (Gradle)", "gradle test", _patterns()),
    "build.gradle.kts": ("Kotlin (Gradle)", "gradle test", _patterns()),
    "Gemfile": ("Ruby", "bundle exec rake test", _patterns()),
    "mix.exs": ("Elixir", "mix test", _patterns(name=r"\bapp: :(\w+)")),
    "composer.json": ("PHP", "", _package_json),
    "CMakeLists.txt": (
        "C or C++ (CMake)",
        "ctest --test-dir build",
        _patterns(name=r"(?i)^\s*project\s*\(\s*([\w.-]+)"),
    ),
    "Makefile": ("", "", _makefile),
}
"""By file name: what kind of project it stands for, how such a project is tested, its reader."""
