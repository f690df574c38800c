"""What the planner takes from manifests, READMEs and file names."""

from __future__ import annotations

from typing import Any

import pytest

from crush_trio.models.scout import facts
from crush_trio.models.scout.manifests import MANIFESTS, read_manifest

SETUP_CFG = """[metadata]
name = old
description = Quite old
[options.entry_points]
console_scripts =
    old = old:main
    new=old:new
[tool:pytest]
"""
CARGO = '[package]\nname = "rusty"\nversion = "0.3.0"\n[[bin]]\nname = "tool"\n'


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("pyproject.toml", "[project\n", {"kind": "Python", "name": "", "tests": []}),
        (
            "pyproject.toml",
            '[tool.poetry]\nname = "p"\ndescription = "d"\n[tool.tox]\n',
            {"name": "p", "about": "d", "tests": ["tox"]},
        ),
        ("pyproject.toml", '[project]\nname = 3\nscripts = "x"', {"kind": "Python", "name": ""}),
        (
            "setup.cfg",
            SETUP_CFG,
            {
                "name": "old",
                "about": "Quite old",
                "starts": ["`old` → `old:main`", "`new` → `old:new`"],
                "tests": ["python -m pytest"],
            },
        ),
        (
            "setup.py",
            'setup(name="a",\n  description=("b c"))',
            {"kind": "Python", "name": "a", "about": "b c"},
        ),
        ("package.json", "[]", {"kind": "JavaScript", "name": "", "starts": []}),
        (
            "package.json",
            '{"name": "n", "main": "m.js", "scripts": {"build": "x"}}',
            {"name": "n", "starts": ["`m.js` (main)", "`npm run build`"], "tests": []},
        ),
        (
            "Cargo.toml",
            CARGO,
            {"version": "0.3.0", "starts": ["`cargo run --bin tool`"], "tests": ["cargo test"]},
        ),
        (
            "Cargo.toml",
            '[workspace]\nmembers = ["a", "b"]\n[workspace.package]\nversion = "1"\n',
            {"about": "A workspace of a, b.", "version": ""},
        ),
        ("go.mod", "module example.org/x\n", {"name": "example.org/x", "kind": "Go"}),
        (
            "pom.xml",
            "<project>\n  <parent>\n    <x/>\n  </parent>\n  <artifactId>app</artifactId>\n"
            "  <description>\n Does it </description>",
            {"name": "app", "about": "Does it", "tests": ["mvn test"]},
        ),
        ("CMakeLists.txt", "PROJECT (thing C)\n", {"name": "thing"}),
        ("mix.exs", "  app: :elix,\n", {"name": "elix", "tests": ["mix test"]}),
        ("Gemfile", "", {"kind": "Ruby"}),
        (
            "Makefile",
            "CHECK := 1\ncheck-all:\ntest: x\ntest-unit-fast:\n",
            {"kind": "", "tests": ["make test", "make check-all"]},
        ),
    ],
)
def test_a_manifest_says_what_it_says_and_nothing_else(
    file: str, text: str, expected: dict[str, Any]
) -> None:
    found = read_manifest(file, text)
    assert {key: getattr(found, key) for key in expected} == expected


@pytest.mark.parametrize("file", MANIFESTS)
@pytest.mark.parametrize("text", ["", "{", "null", '{"a": 1}', "\0\0", "[a]\nb = 1"])
def test_no_manifest_is_too_broken_to_be_read(file: str, text: str) -> None:
    assert read_manifest(file, text).kind == MANIFESTS[file][0]


@pytest.mark.parametrize(
    ("text", "paragraph"),
    [
        ("", ""),
        (
            "# Title\n\n[![ci](x)](y)\n<p>logo</p>\n\nThe prose\ngoes on.\n\nMore.",
            "The prose goes on.",
        ),
        ("Title\n=====\n\n.. image:: x\n   :alt: y\n\nThe prose.\n", "The prose."),
        ("Prose.\n# Next", "Prose."),
        ("Prose.\nSection\n-------\n", "Prose."),
        ("word " * 200, "word " * 100 + "…"),
    ],
)
def test_the_first_paragraph_is_the_first_prose(text: str, paragraph: str) -> None:
    assert facts.first_paragraph(text) == paragraph


@pytest.mark.parametrize(
    ("path", "test", "program"),
    [
        ("tests/data.txt", True, False),
        ("src/_tests/x.py", True, False),
        ("a_test.go", True, False),
        ("x.spec.ts", True, False),
        ("conftest.py", True, False),
        ("src/latest/x.py", False, True),
        ("contest.py", False, True),
        ("bin/tool", False, True),
        ("doc/page.html", False, False),
    ],
)
def test_tests_and_programs_are_known_by_their_names(path: str, test: bool, program: bool) -> None:
    assert (facts.is_test(path), facts.is_program(path)) == (test, program)


def test_languages_are_ordered_by_size_and_the_rest_comes_last() -> None:
    summary = {"extensions": {"": [9, 9_000], ".md": [1, 500], ".pyi": [1, 60], ".py": [2, 100]}}
    assert facts.languages(summary) == [
        ("Markdown", 1, 500),
        ("Python", 3, 160),
        ("other", 9, 9_000),
    ]
    assert facts.main_language(summary) == "Python"
    assert facts.main_language({"extensions": {".md": [1, 1]}}) == ""


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (20_480, "20 KiB"), (5 * 2**30, "5.0 GiB")],
)
def test_bytes_are_shown_as_people_read_them(size: int, text: str) -> None:
    assert facts.human(size) == text
