"""What names, numbers and a README say: languages, tests, the largest parts, the purpose."""

from __future__ import annotations

import collections
import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

_LANGUAGES: Final = """Python py pyi pyx · JavaScript js mjs cjs jsx · TypeScript ts tsx mts · Go go
· Rust rs · C c h · C++ cc cpp cxx hpp hh · Java java · Kotlin kt · C# cs · Ruby rb rake · PHP php
· Swift swift · Elixir ex exs · Shell sh bash zsh fish bats · Perl pl pm · Lua lua · SQL sql"""
_FORMATS: Final = """HTML html htm j2 · CSS css scss less · Markdown md · reStructuredText rst
· JSON json · YAML yml yaml · TOML toml · XML xml · text txt · compiled so o a dll exe wasm
· image png jpg jpeg gif svg ico webp"""
_PROGRAMS: Final = {row.split()[0] for row in _LANGUAGES.split("·")}
_NAME: Final = {
    f".{extension}": name
    for name, *extensions in (row.split() for row in f"{_LANGUAGES} · {_FORMATS}".split("·"))
    for extension in extensions
}
_TEST: Final = re.compile(
    r"(?:^|/)_?(?:tests?|__tests__|specs?|testdata)/|(?:^|/)(?:test_[^/]*|conftest\.py)$"
    r"|_test\.\w+$|\.(?:test|spec)\.\w+$|_spec\.rb$"
)
TEST_GLOB: Final = (
    "{**/{test,tests,_tests,__tests__,spec,specs}/**/*.*,**/test_*.*,**/*_test.*,**/*.test.*"
    ",**/*.spec.*}"
)
_NOISE: Final = re.compile(r"\s*(?:\[?!\[|<|\.\. |:\w+:|[=\-~^#*+`_]{3,}\s*$|\||#)")


def is_test(path: str) -> bool:
    """Whether the path looks like a test's."""
    return _TEST.search(path) is not None


def most_common(words: Iterable[str]) -> str:
    """The most frequent words, each with its count."""
    counts = collections.Counter(words).most_common(4)
    return ", ".join(f"`{word}` ({count})" for word, count in counts)


def first_paragraph(text: str) -> str:
    """The first prose of a README or docstring, on one line, at most about 500 characters."""
    lines: list[str] = []
    for line, below in itertools.pairwise([*text.splitlines(), ""]):
        underlined = re.fullmatch(r"\s*([=\-~^*#])\1{2,}\s*", below) is not None
        if not underlined and line.strip() and not _NOISE.match(line):
            lines.append(line.strip())
        elif lines:
            break
    words = " ".join(lines)
    return words if len(words) <= 500 else words[:500].rsplit(" ", 1)[0] + " …"


def languages(summary: Mapping[str, Any]) -> list[tuple[str, int, int]]:
    """Name, files and bytes of each language or format, the largest first, what is left last."""
    rows: dict[str, list[int]] = {}
    for extension, (files, size) in summary["extensions"].items():
        row = rows.setdefault(_NAME.get(extension, "other"), [0, 0])
        row[0] += files
        row[1] += size
    ordered = sorted(rows.items(), key=lambda row: (row[0] == "other", -row[1][1]))
    return [(name, files, size) for name, (files, size) in ordered]


def main_language(summary: Mapping[str, Any]) -> str:
    """The programming language most of the bytes are in, or nothing."""
    return next((name for name, _, _ in languages(summary) if name in _PROGRAMS), "")


def is_program(path: str) -> bool:
    """Whether the path is that of source code and not of a test."""
    name = path.rsplit("/", 1)[-1]
    known = "." not in name or _NAME.get(f".{name.rsplit('.', 1)[-1]}") in _PROGRAMS
    return known and not is_test(path)


def count(number: int, what: str) -> str:
    """``1 file``, ``2 files``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def human(size: float) -> str:
    """Bytes as people read them, in steps of 1024."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if size >= 10 or unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
