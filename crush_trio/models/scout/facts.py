"""What file names and sizes say: languages, test files, the largest parts, a README's purpose."""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any, Final

from crush_trio.models.scout.plan import Answer

_LANGUAGES: Final = {
    "Python": ".py .pyi .pyx",
    "JavaScript": ".js .mjs .cjs .jsx",
    "TypeScript": ".ts .tsx .mts",
    "Go": ".go",
    "Rust": ".rs",
    "C": ".c .h",
    "C++": ".cc .cpp .cxx .hpp .hh",
    "Java": ".java",
    "Kotlin": ".kt .kts",
    "C#": ".cs",
    "Ruby": ".rb .rake",
    "PHP": ".php",
    "Swift": ".swift",
    "Shell": ".sh .bash .zsh .fish .bats",
    "HTML": ".html .htm .jinja .j2",
    "CSS": ".css .scss .less",
    "SQL": ".sql",
    "Markdown": ".md .markdown",
    "reStructuredText": ".rst",
    "JSON": ".json",
    "YAML": ".yml .yaml",
    "TOML": ".toml",
    "text": ".txt",
    "compiled": ".so .o .a .dylib .dll .exe .pyc .wasm",
    "image": ".png .jpg .jpeg .gif .svg .ico .webp",
}
_LANGUAGE: Final = {ext: name for name, exts in _LANGUAGES.items() for ext in exts.split()}
_TEST: Final = re.compile(
    r"(?:^|/)(?:tests?|__tests__|specs?|testdata|_tests)/|(?:^|/)(?:test_[^/]*|conftest\.py)$"
    r"|_test\.\w+$|\.(?:test|spec)\.\w+$|_spec\.rb$"
)
_NOISE: Final = re.compile(r"\s*(?:\[?!\[|<|\.\. |:\w+:|[=\-~^#*+`_]{3,}\s*$|\|)")


def is_test(path: str) -> bool:
    """Whether the path looks like a test's."""
    return _TEST.search(path) is not None


def most_common(words: Iterable[str], shown: int = 4) -> str:
    """The most frequent words, each with its count."""
    counts = collections.Counter(words).most_common(shown)
    return ", ".join(f"`{word}` ({count})" for word, count in counts)


def first_paragraph(text: str) -> str:
    """The first prose of a README or docstring, on one line, at most about 500 characters."""
    lines: list[str] = []
    for line, below in zip(text.splitlines(), [*text.splitlines()[1:], ""], strict=False):
        underlined = re.fullmatch(r"\s*([=\-~^*#])\1{2,}\s*", below) is not None
        if line.startswith("#") or underlined or _NOISE.match(line) or not line.strip():
            if lines:
                break
            continue
        lines.append(line.strip())
    words = " ".join(lines)
    return words if len(words) <= 500 else words[:500].rsplit(" ", 1)[0] + " …"


def sizes(tree: Answer, paths: list[str]) -> str:
    """Languages with their files and bytes; only files where the listing has no sizes."""
    summary = tree.metadata.get("summary")
    rows: dict[str, list[int]] = {}
    if type(summary) is dict:
        for ext, (files, size) in summary["extensions"].items():
            row = rows.setdefault(_LANGUAGE.get(ext, "other"), [0, 0])
            row[0] += files
            row[1] += size
        total = f"{summary['files']} files, {human(summary['bytes'])}"
        cut = "" if summary["complete"] else " (counting stopped there; there are more)"
    else:
        for path in paths:
            if not path.endswith("/"):
                ext = PurePosixPath(path).suffix.lower()
                rows.setdefault(_LANGUAGE.get(ext, "other"), [0, 0])[0] += 1
        total = f"{sum(row[0] for row in rows.values())} files"
        cut = " (the listing is cut; there are more)" if tree.metadata.get("truncated") else ""
    ordered = sorted(rows.items(), key=lambda row: (-row[1][1], -row[1][0]))
    table = [f"| {name} | {files} | {human(size)} |" for name, (files, size) in ordered[:10]]
    head = ("## Languages and size", "", f"{total}{cut}.", "")
    return "\n".join([*head, "| language | files | size |", "|---|--:|--:|", *table])


def largest(tree: Answer, paths: list[str]) -> str:
    """The largest directories and files, by bytes if the listing has them, else by files."""
    summary = tree.metadata.get("summary")
    if type(summary) is not dict:
        parts = most_common(path.split("/")[0] + "/" for path in paths if "/" in path[:-1])
        return f"## Largest parts\n\nBy number of files: {parts}." if parts else ""
    lines = [
        f"- `{name}/` {files} files, {human(size)}"
        for name, (files, size) in _by_size(summary["directories"])
    ]
    lines += [f"- `{path}` {human(size)}" for path, size in summary["largest"][:6]]
    return "\n".join(["## Largest parts", "", *lines]) if lines else ""


def human(size: int) -> str:
    """Bytes as people read them, in steps of 1024; a dash for none."""
    if size == 0:
        return "–"
    amount = float(size)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def _by_size(directories: dict[str, Any]) -> list[tuple[str, Any]]:
    return sorted(directories.items(), key=lambda entry: -entry[1][1])[:5]
