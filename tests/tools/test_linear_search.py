"""Foreign patterns take no longer than the text is long, and mean what they mean to git (T48)."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from crush_trio.agent.ports import PermissionAsk
from crush_trio.limits import PATTERN_CHARS
from crush_trio.tools.permission.patterns import decide
from crush_trio.tools.search import program
from crush_trio.tools.search.contents import lines_found
from crush_trio.tools.search.gitignore import IgnoreLines
from crush_trio.tools.search.globs import Glob
from crush_trio.tools.search.linear import Linear, PatternError
from crush_trio.tools.search.ripgrep import same_meaning
from crush_trio.tools.search.walk import walk

RG = shutil.which("rg")
EVIL = [
    *("(a+)+$", "(a*)*$", "(a|a)*$", "(a|aa)+$", "(.*)*$", "(.*a){30}$", "(a?){30}a{30}$"),
    *("^(a+)+!?b", "((a+)+)+$", "(a+|b)*c", "(x+x+)+y", "([a-z]+)*=", "(a|b|ab)*c", "(.|a)*b"),
    *("(?i)(a+)+$", "(?:a*)*b", "^(([a-z])+.)+[A-Z]([a-z])+$", "(.*?,){11}P", "(a*a*)*b"),
    *("a*a*a*a*a*a*a*a*a*a*a*a*b", "a?a?a?a?a?a?a?a?aaaaaaaa$", ".*.*.*.*.*.*.*=", r"(\w+\s?)*$"),
    *(r"^(\d+)*$|(a+)*$", r"(\s+)*x", r"(a+\s*)+\n", "(a{1,30}){1,30}b", "(a+){10}b", "a{1000}b"),
    *("(((a*)*)*)*b", "(a.?)*c", "(?s)(.+)+x", "(?m)(^a*)*b", "[^b]*[^c]*[^d]*[^e]*b", "(aa*)*c"),
    *(
        "(a|a|a|a|a|a|a)*b",
        "(" * 200 + "a*" + ")*" * 200 + "b",
        "|".join(["a*b"] * 500),
        "a*" * 500,
    ),
    *("(a?b?c?d?e?){100}x", "(.{1,9}){1,9}x", r"\b(a+)+\b!", "(?U)(a+)+$", r"(\p{L}+)+b"),
]
REFUSED = {
    "(a)\\1": "back-references are not supported",
    "(?=a)b": "look-ahead is not supported",
    "(?!a)b": "look-ahead is not supported",
    "(?<=a)b": "look-behind is not supported",
    "(?<!a)b": "look-behind is not supported",
    "(?>a)b": "atomic groups are not supported",
    "(?x) a": "the flag x is not supported",
    "(a{100}){100}": "too large",
    "a{1001}": "too large",
    r"(\pL{9}){99}" * 9: "too large",
    "a" * (PATTERN_CHARS + 1): "longer than",
    "(": "not a regular expression: missing )",
    "a++": "not a regular expression",
}


def took(began: float) -> float:
    return time.process_time() - began


def rows(**request: Any) -> list[list[Any]]:
    whole = {"include": "", "literal": False, "most": 100, "ripgrep": None, **request}
    return list(program.MODES[request["mode"]](whole))


def test_no_pattern_takes_longer_than_the_text_is_long(tmp_path: Path) -> None:
    """T48: for Python's `re` the first of them take longer than the universe has lasted."""
    text = ("a" * 2_000 + "!\n") * 3 + "ab " * 1_000
    (tmp_path / "evil").write_text(text)
    above = os.fsencode(tmp_path) + b"/"
    assert len(EVIL) > 40
    for pattern in EVIL:
        began = time.process_time()
        for _ in lines_found(above, [("evil", len(text))], Linear(pattern)):
            pass
        assert took(began) < 1, pattern


@pytest.mark.parametrize("pattern", REFUSED, ids=lambda pattern: pattern[:20])
def test_what_no_automaton_can_do_is_refused_with_a_sentence_that_says_so(pattern: str) -> None:
    with pytest.raises(PatternError, match="pattern") as refused:
        Linear(pattern)
    assert REFUSED[pattern] in str(refused.value)


def test_no_glob_and_no_gitignore_takes_longer_than_the_path_is_long() -> None:
    """T48: in globs of models, in a repository's own files, in rules that the server judges."""
    path = "a" * 200 + "/" + "a/" * 400 + "!"
    lines = [
        "a*" * 40 + "b",
        "**/" * 60 + "b",
        "*a" * 60,
        "{a,aa}" * 40 + "b",
        "{" * 90 + "a" + "}" * 90,
    ]
    lines += [
        "[a-z]*" * 40,
        "**" * 100 + "b",
        "?" * 300 + "*?" * 60,
        "{a*,{a*,{a*,a*b}}}" * 20 + "/b",
    ]
    for line in lines:
        began = time.process_time()
        Glob(line).matches(path)
        IgnoreLines(line.encode() + b"\n").ignores(path)
        if not line.startswith(("{", "?")):
            ask = PermissionAsk("write", "write", "", "", {}, target=f"/w/{path}", inside=True)
            assert decide(ask, "deny", [f"write({line})"], [], workspace=Path("/w"))
        assert took(began) < 2, line
    began = time.process_time()
    many = IgnoreLines(b"".join(b"*%d*x%d\n!y%d*\n" % (n, n, n) for n in range(5_000)))
    decided: dict[str, bool] = {}
    many.decide("", [f"{n}x{n}" for n in range(100)], decided)
    assert (len(decided), took(began) < 3) == (100, True)


TOKENS = ["a", "b", "*", "**", "?", "/", "[ab]", "[!a]", "\\", "[a-", "]", "é", ".", "!", "#", " "]
TOKENS += [
    "log",
    "[[:alpha:]]",
    "[]-a]",
    "/**/",
    "**/",
    "*.log",
    "a/",
    "\r",
    "[^/]",
    "[\\]]",
    "{a,b}",
]
NAMES = [
    "a",
    "b",
    "ab",
    "a.log",
    "b.log",
    "é",
    "[a",
    "a b",
    "*",
    "log",
    "ba",
    "]",
    "a\nb",
    "!a",
    "#",
]


def make_repository(root: Path, chance: random.Random) -> None:
    """Sixty directories, each with a .gitignore of its own and what may fall under it."""
    for number in range(60):
        top = root / f"dir{number}"
        for _ in range(10):
            file = top.joinpath(*chance.choices(NAMES, k=chance.randint(1, 4)))
            if not any(above.is_file() for above in file.parents) and not file.is_dir():
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text("x\n")
        for place in (top, *[one for one in top.rglob("*") if one.is_dir()][:1]):
            lines = ("".join(chance.choices(TOKENS, k=chance.randint(1, 5))) for _ in range(3))
            (place / ".gitignore").write_text("\n".join(lines))


@pytest.mark.parametrize("seed", range(int(os.environ.get("CRUSH_TRIO_LONG_SEARCH", "2"))))
def test_what_a_walk_leaves_out_is_what_git_leaves_out(seed: int, tmp_path: Path) -> None:
    make_repository(tmp_path, random.Random(seed))
    git = ["git", "-c", "core.excludesFile=/dev/null", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    said = subprocess.run(
        [*git, "ls-files", "--others", "--exclude-standard", "-z"], check=True, capture_output=True
    )
    expected = {os.fsdecode(name) for name in said.stdout.split(b"\0") if name}
    found = {one.path for one in walk(str(tmp_path), str(tmp_path)) if one.is_file}
    assert len(expected) > 100
    assert found == expected


def make_corpus(root: Path) -> None:
    texts: dict[str, bytes] = {
        "plain.py": b"def needle():\n    return 'a needle'\n\nNEEDLE = 1",
        "crlf.txt": b"needle\r\nno\r\nends with needle\r\n",
        "latin1.txt": b"caf\xe9 needle\ncaf\xe9\n",
        "utf8.md": "Überlegung: naïve café\nüber needle\n€ 5\n".encode(),
        "bom.cs": b"\xef\xbb\xbfneedle first\nsecond\n",
        "utf16.txt": "needle in utf-16\nline two\n".encode("utf-16"),
        "binary.bin": b"needle\0\1\2needle\n",
        "empty": b"",
        "blank.txt": b"\n\n   \n\t\n",
        "nolf": b"last line without needle end",
        "wide.js": b"var needle = '" + b"x" * 900 + b"';\n",
        "many.log.txt": b"needle\n" * 7,
        "sub/deep/inner.py": b"import needle\nfoo(bar)\n",
        "sub/skip.log": b"needle ignored\n",
        "sub/.hidden": b"needle hidden\n",
        "sub/we ird[1].py": b"needle {a,b} [x] (y) a.b a|b $5 ^ \\d\n",
        ".git/config": b"needle\n",
        "build/out.py": b"needle built\n",
        ".ignore": b"plain.py\n",
    }
    for number, (name, data) in enumerate(texts.items()):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path, (1_000_000 + number, 1_000_000 + number))
    (root / ".gitignore").write_text("*.log\nbuild/\n")
    os.utime(root / ".gitignore", (1, 1))
    (root / "link.py").symlink_to("plain.py")


PATTERNS = [
    *(
        "needle",
        "^needle",
        "needle$",
        "^needle$",
        "(?i)NEEDLE",
        "n.*e$",
        r"\bneedle\b",
        "[nN]eedle",
    ),
    *("[^a-z]needle", r"\d", r"\w+\(", "^$", "^", "$", r"^\s*$", "a|b", "needle|foo", "é", "Über"),
    *("caf.", "(?i)über", "€ 5", r"\$5", r"\\d", r"a\.b", "x{5}", "(needle){1,2}", "(?P<n>foo)"),
    *(r"\p{L}é", r"\Aneedle", r"two\z", "[[:upper:]]", "a.b", "no such thing", r"[\w.]+ needle"),
    *(
        r"needle\s",
        "(?s)needle.no",
        r"needle\nno",
        "[]a]",
        r"\x41",
        "ne+dle?",
        "(foo|bar)+",
        "[n&&x]eedle",
    ),
]


@pytest.mark.skipif(RG is None, reason="ripgrep is not installed")
def test_the_same_lines_are_found_with_ripgrep_and_without(tmp_path: Path) -> None:
    make_corpus(tmp_path)
    asked = 0
    for pattern, literal in itertools.product(PATTERNS, (False, True)):
        for include in ("", "*.py", "sub/**", "*.{md,txt}") if pattern == "needle" else ("",):
            request = {"pattern": pattern, "literal": literal, "include": include}
            request |= {"mode": "grep", "start": str(tmp_path), "root": str(tmp_path)}
            own = rows(**request)
            assert rows(**request, ripgrep=RG) == own, request
            asked += same_meaning(pattern, literal=literal)
    assert asked > 60


def test_lines_are_those_of_the_file_whatever_it_is_written_in(tmp_path: Path) -> None:
    make_corpus(tmp_path)

    def found(pattern: str, **more: Any) -> list[tuple[str, int]]:
        request = {"mode": "grep", "start": str(tmp_path), "root": str(tmp_path)} | more
        return [(path, number) for path, number, _ in rows(pattern=pattern, **request)]

    assert found("needle$") == [
        ("sub/deep/inner.py", 1),
        *(("many.log.txt", number) for number in range(1, 8)),
        ("utf8.md", 2),
        ("latin1.txt", 1),
        ("crlf.txt", 1),
        ("crlf.txt", 3),
    ]
    assert found("^needle (first|in)") == [("utf16.txt", 1), ("bom.cs", 1)]
    assert found(r"\Aneedle") == [
        ("sub/we ird[1].py", 1),
        ("sub/.hidden", 1),
        ("many.log.txt", 1),
        ("utf16.txt", 1),
        ("bom.cs", 1),
        ("crlf.txt", 1),
    ]
    assert found("(?i)ÜBER") == [("utf8.md", 1), ("utf8.md", 2)]
    assert found("caf.", include="latin1.txt") == []
    assert found("^$", include="blank.txt") == [("blank.txt", 1), ("blank.txt", 2)]
    assert found("end$", start=f"{tmp_path}/nolf") == [("nolf", 1)]
