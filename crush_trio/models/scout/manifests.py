"""What manifests say of a project: its name, its purpose, how it is started and tested."""

from __future__ import annotations

import configparser
import re
import tomllib
from collections.abc import Callable
from typing import Any, Final

import attrs
import orjson


@attrs.define
class Facts:
    """What one manifest says; empty where it is silent."""

    kind: str
    name: str = ""
    version: str = ""
    about: str = ""
    starts: list[str] = attrs.field(factory=list)
    tests: list[str] = attrs.field(factory=list)


def read_manifest(file: str, text: str) -> Facts:
    """The facts in the manifest called ``file`` (a key of `MANIFESTS`).

    A manifest that cannot be parsed (it may be cut) has its kind and nothing else.
    """
    kind, tests, fill = MANIFESTS[file]
    facts = Facts(kind, tests=[tests] if tests else [])
    try:
        fill(facts, text)
    # TOML, JSON and ini errors are ValueErrors or configparser's; a wrong shape is one of the rest.
    except (ValueError, configparser.Error, AttributeError, TypeError, KeyError):
        return Facts(kind, tests=facts.tests)
    return facts


def _pyproject(facts: Facts, text: str) -> None:
    data = tomllib.loads(text)
    tool = data.get("tool", {})
    project = data.get("project") or tool.get("poetry") or {}
    facts.name, facts.about = project.get("name", ""), project.get("description", "")
    facts.version = str(project.get("version", ""))
    scripts = project.get("scripts", {}) | project.get("gui-scripts", {})
    facts.starts = [f"`{name}` → `{target}`" for name, target in scripts.items()]
    facts.tests = [
        run
        for name, run in (
            ("pytest", "python -m pytest"),
            ("tox", "tox"),
            ("nox", "nox"),
            ("hatch", "hatch test"),
        )
        if name in tool and (name != "hatch" or "envs" in tool[name])
    ]


def _setup_cfg(facts: Facts, text: str) -> None:
    config = configparser.ConfigParser(interpolation=None)
    config.read_string(text)
    facts.name = config.get("metadata", "name", fallback="")
    facts.about = config.get("metadata", "description", fallback="")
    scripts = config.get("options.entry_points", "console_scripts", fallback="")
    pairs = [line.partition("=") for line in scripts.splitlines() if "=" in line]
    facts.starts = [f"`{name.strip()}` → `{target.strip()}`" for name, _, target in pairs]
    facts.tests = ["python -m pytest"] if config.has_section("tool:pytest") else []


def _package_json(facts: Facts, text: str) -> None:
    data = orjson.loads(text)
    facts.name, facts.about = data.get("name", ""), data.get("description", "")
    facts.version = data.get("version", "")
    commands = data.get("bin", {})
    if isinstance(commands, str):
        commands = {facts.name: commands}
    facts.starts = [f"`{name}` → `{target}`" for name, target in commands.items()]
    facts.starts += [f"main `{data[key]}`" for key in ("main", "module") if data.get(key)]
    scripts: dict[str, Any] = data.get("scripts", {})
    facts.starts += [f"`npm run {name}`" for name in ("start", "dev", "build") if name in scripts]
    facts.tests = [f"npm test  # {scripts['test']}"] if "test" in scripts else []


def _cargo(facts: Facts, text: str) -> None:
    data = tomllib.loads(text)
    package = data.get("package", {})
    facts.name, facts.about = package.get("name", ""), package.get("description", "")
    version = package.get("version", "")
    facts.version = version if isinstance(version, str) else ""
    facts.starts = [f"`cargo run --bin {entry['name']}`" for entry in data.get("bin", [])]
    if members := data.get("workspace", {}).get("members"):
        facts.about = facts.about or f"a workspace of {', '.join(members)}"


def _patterns(**wanted: str) -> Callable[[Facts, str], None]:
    """Fills each field from the first match of its pattern."""

    def fill(facts: Facts, text: str) -> None:
        for field, pattern in wanted.items():
            if match := re.search(pattern, text, re.MULTILINE):
                setattr(facts, field, match[1].strip())

    return fill


def _make(facts: Facts, text: str) -> None:
    targets = re.findall(r"^((?:test|check)[\w-]*)[ \t]*:(?!=)", text, re.MULTILINE)
    facts.tests = [f"make {target}" for target in dict.fromkeys(targets)][:3]


_QUOTED: Final = r"[ \t(]*[\"']([^\"'\n]+)[\"']"
MANIFESTS: Final[dict[str, tuple[str, str, Callable[[Facts, str], None]]]] = {
    "pyproject.toml": ("Python", "", _pyproject),
    "setup.cfg": ("Python", "", _setup_cfg),
    "setup.py": (
        "Python",
        "",
        _patterns(name=rf"\bname={_QUOTED}", about=rf"\bdescription={_QUOTED}"),
    ),
    "package.json": ("JavaScript", "", _package_json),
    "Cargo.toml": ("Rust", "cargo test", _cargo),
    "go.mod": (
        "Go",
        "go test ./...",
        _patterns(name=r"^module[ \t]+(\S+)", version=r"^(go[ \t]+\S+)"),
    ),
    "pom.xml": (
        "Java (Maven)",
        "mvn test",
        _patterns(name=r"^(?: {2,4}|\t)<artifactId>(.+?)</", about=r"<description>\s*(.+?)\s*</"),
    ),
    "build.gradle": ("Java (Gradle)", "gradle test", _patterns()),
    "build.gradle.kts": ("Kotlin (Gradle)", "gradle test", _patterns()),
    "Gemfile": ("Ruby", "bundle exec rake test", _patterns()),
    "CMakeLists.txt": (
        "C or C++ (CMake)",
        "ctest --test-dir build",
        _patterns(name=r"(?i)^\s*project\s*\(\s*([\w.-]+)"),
    ),
    "composer.json": ("PHP", "", _package_json),
    "mix.exs": ("Elixir", "mix test", _patterns(name=r"\bapp: :(\w+)")),
    "Makefile": ("make", "", _make),
}
"""By file name: what kind of project it stands for, how such a project is tested, its reader."""
