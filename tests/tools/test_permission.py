"""The permission policy as a table (contract 7)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from crush_trio.agent.ports import Decision, PermissionAsk
from crush_trio.tools.permission.patterns import decide, parse_pattern

ROOT = Path("/home/ana/proj")


def bash(command: str, inside: bool = True) -> PermissionAsk:
    return PermissionAsk("bash", "execute", "", "/home/ana/proj", {}, command, inside)


def fetch(url: str, tool: str = "fetch") -> PermissionAsk:
    return PermissionAsk(tool, "fetch", "", "", {}, url, False)


def asking(tool: str, url: str) -> PermissionAsk:
    return PermissionAsk(tool, "fetch", "", "", {"url": url}, url, False)


def download(path: str, url: str = "https://host.example/") -> PermissionAsk:
    inside, params = Path(path).is_relative_to(ROOT), {"url": url}
    return PermissionAsk("download", "download", "", str(Path(path).parent), params, path, inside)


def write(path: str, tool: str = "write") -> PermissionAsk:
    inside = Path(path).is_relative_to(ROOT)
    return PermissionAsk(tool, "write", "", str(Path(path).parent), {}, path, inside)


ALLOWED = [
    ("bash", bash("anything; at all")),
    ("bash:execute", bash("make")),
    ("bash(make)", bash("make")),
    ("bash(make)", bash("make test")),
    ("bash(git log…)", bash("git log --oneline")),
    ("bash(git log...)", bash("git  log 'a b'")),
    ("bash(git log:*)", bash("git log")),
    ("bash(git log *)", bash("git log -3")),
    ('bash(echo "a b")', bash("echo 'a b' c")),
    ("write", write("/etc/passwd")),
    ("write:write", write("/home/ana/proj/x")),
    ("write(src/**)", write("/home/ana/proj/src/a/b.py")),
    ("write(*.md)", write("/home/ana/proj/docs/a.md")),
    ("write(/tmp/**)", write("/tmp/x/y")),
    ("write(src/**)", write("/home/ana/proj/src/a.py", tool="edit")),
    ("write(src/**)", write("/home/ana/proj/src/a.py", tool="multiedit")),
    ("edit(src/**)", write("/home/ana/proj/src/a.py", tool="edit")),
    ("fetch(example.com)", fetch("https://example.com/x?y")),
    ("fetch(Example.COM)", fetch("http://EXAMPLE.com.:8080")),
    ("fetch(*.example.com)", fetch("https://a.b.example.com/")),
    ("fetch(bücher.example)", fetch("https://xn--bcher-kva.example/")),
    ("fetch(127.0.0.1)", fetch("http://127.0.0.1:3000/")),
    ("download(src/**)", download("/home/ana/proj/src/a.bin")),
]
NOT_ALLOWED = [
    ("fetch(example.com)", fetch("https://www.example.com/")),
    ("fetch(example.com)", fetch("https://example.com.evil.org/")),
    ("fetch(example.com)", fetch("https://evil.org/example.com")),
    ("fetch(example.com)", fetch("https://evil.org?example.com")),
    ("fetch(example.com)", fetch("https://example.com@evil.org/")),
    ("fetch(example.com)", fetch("https://evil.org\\@example.com/")),
    ("fetch(example.com)", fetch("a question")),
    ("fetch(*.example.com)", fetch("https://example.com/")),
    ("fetch(*.example.com)", fetch("https://evilexample.com/")),
    ("fetch(example.com)", fetch("https://example.com/", tool="agentic_fetch")),
    ("fetch(example.com)", download("/home/ana/proj/a", url="https://Example.com/x")),
    ("fetch(*.example.com)", asking("agentic_fetch", "https://www.example.com/")),
    ("write(src/**)", download("/home/ana/proj/src/a.bin")),
    ("download(src/**)", download("/home/ana/proj/a.bin")),
    ("bash:read", bash("make")),
    ("bash(make)", bash("makefile")),
    ("bash(make)", bash("make; rm -rf /")),
    ("bash(make)", bash("make && rm -rf /")),
    ("bash(make)", bash("make | sh")),
    ("bash(make)", bash("make\nrm -rf /")),
    ("bash(make)", bash("make\rrm -rf /")),
    ("bash(make)", bash("make $(rm -rf /)")),
    ("bash(make)", bash("make `rm -rf /`")),
    ("bash(make)", bash('make "$(rm -rf /)"')),
    ("bash(make)", bash("make > /etc/passwd")),
    ("bash(make)", bash("make <(rm x)")),
    ("bash(make)", bash("make & rm -rf /")),
    ("bash(make)", bash("X=1 make")),
    ("bash(make)", bash("make *")),
    ("bash(make)", bash("make $HOME")),
    ("bash(make)", bash("make 'unbalanced")),
    ("bash(make)", bash("ma\\ke")),
    ("bash(make)", bash("make test", inside=False)),
    ("bash(git log)", bash("git  push")),
    ("bash(git log)", bash("git")),
    ("write(src/**)", write("/home/ana/proj/source/a.py")),
    ("write(src/**)", write("/etc/src/a.py")),
    ("write(*.md)", write("/etc/a.md")),
    ("write(/tmp/**)", write("/home/ana/proj/tmp/x")),
    ("edit(src/**)", write("/home/ana/proj/src/a.py")),
    ("edit", write("/home/ana/proj/src/a.py")),
]
DENIED = [
    ("fetch(example.com)", fetch("https://EXAMPLE.com./x")),
    ("fetch(example.com)", fetch("https://a@example.com/")),
    ("fetch(example.com)", fetch("what no parser reads")),
    ("fetch(*.example.com)", fetch("http://a.b.example.com:8080/")),
    ("write(src/**)", download("/home/ana/proj/src/a.bin")),
    ("bash", bash("true")),
    ("bash(rm)", bash("rm -rf /")),
    ("bash(rm)", bash("/bin/rm -rf /")),
    ("bash(rm)", bash("true; rm -rf /")),
    ("bash(rm)", bash("true\nrm -rf /")),
    ("bash(rm)", bash("echo $(rm x)")),
    ("bash(rm)", bash("r''m x | cat")),
    ("bash(rm)", bash("\\rm x")),
    ("bash(rm)", bash("X=1 rm x")),
    ("bash(rm)", bash("sudo rm x")),
    ("bash(rm)", bash("env A=1 rm x")),
    ("bash(rm)", bash("sh -c 'cd /; rm x'")),
    ("bash(rm)", bash("find . -exec rm x")),
    ("bash(rm)", bash("fish -c 'r\\m x'")),
    ("bash(rm)", bash("systemd-run --user rm x")),
    ("bash(rm)", bash("perl -e 'system \"rm x\"'")),
    ("bash(git push)", bash("cd x && git push -f")),
    ("write(.env)", write("/home/ana/proj/a/.env")),
    ("write(.env)", write("/home/ana/proj/.env", tool="edit")),
    ("write(/etc/**)", write("/etc/passwd")),
]
NOT_DENIED = [
    ("fetch(example.com)", download("/home/ana/proj/a", url="https://example.org/example.com")),
    ("agentic_fetch(example.com)", download("/home/ana/proj/a", url="https://example.com/")),
    ("fetch(example.com)", fetch("https://example.org/")),
    ("write(.env)", bash("cat .env")),
    ("write(.env)", bash("make > out")),
    ("bash(git push)", bash("git commit -m 'then push'")),
    ("bash(rm)", bash("for f in a b; do cat $f; done")),
    ("bash(rm)", bash("git commit -m \"$(cat <<'E'\nfix (it)\nE\n)\"")),
    ("bash(rm)", bash("find . -name x | xargs -I{} cp {} y")),
    ("bash(rm)", bash("rmdir x")),
    ("bash(rm)", bash("git rm x")),
    ("bash(rm)", bash("echo rm")),
    ("bash(git push)", bash("git pull")),
    ("write(.env)", write("/home/ana/proj/env")),
]


def decided(ask: PermissionAsk, *rules: Any, **more: Any) -> Decision:
    """The decision in a mode that has one for every call."""
    decision = decide(ask, *rules, **more)
    assert decision is not None
    return decision


@pytest.mark.parametrize(("pattern", "ask"), ALLOWED)
def test_a_pattern_allows_what_it_names(pattern: str, ask: PermissionAsk) -> None:
    assert decided(ask, "deny", [pattern], [], workspace=ROOT).allowed


@pytest.mark.parametrize(("pattern", "ask"), NOT_ALLOWED)
def test_a_pattern_allows_nothing_else(pattern: str, ask: PermissionAsk) -> None:
    decision = decided(ask, "deny", [pattern], [], workspace=ROOT)
    assert not decision.allowed
    assert "nobody is there to allow it" in decision.reason


@pytest.mark.parametrize(("pattern", "ask"), DENIED)
def test_deny_beats_allow_in_both_modes(pattern: str, ask: PermissionAsk) -> None:
    for mode in ("deny", "allow"):
        decision = decided(ask, mode, ["bash", "write", "edit"], [pattern], workspace=ROOT)
        assert not decision.allowed
        assert repr(pattern) in decision.reason


@pytest.mark.parametrize(("pattern", "ask"), NOT_DENIED)
def test_a_denying_pattern_leaves_other_calls_alone(pattern: str, ask: PermissionAsk) -> None:
    assert decided(ask, "allow", [], [pattern], workspace=ROOT).allowed


def test_without_a_workspace_relative_globs_fail_closed() -> None:
    ask = write("/home/ana/proj/src/a.py")
    assert not decided(ask, "deny", ["write(src/**)"], []).allowed
    assert not decided(ask, "allow", [], ["write(src/**)"]).allowed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bash(",
        "bash)",
        "bash()",
        "bash(a; b)",
        "bash($x)",
        "bash:",
        "bash(*)",
        ":execute",
        "a b",
        "fetch()",
        "fetch(http://x)",
        "fetch(a b)",
        "fetch(*)",
        "fetch(*.127.0.0.1)",
        "fetch(0x7f.1)",
        "job_output(x)",
        "write()",
        "write(!x)",
        "write(a\nb)",
    ],
)
def test_a_malformed_pattern_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match="permission pattern"):
        parse_pattern(text)
    with pytest.raises(ValueError, match="permission pattern"):
        decided(bash("x"), "allow", [text], [])


@pytest.mark.parametrize(("pattern", "ask"), ALLOWED)
def test_in_mode_ask_a_pattern_decides_and_a_person_the_rest(
    pattern: str, ask: PermissionAsk
) -> None:
    """R67, I29: deny beats allow, and both beat asking."""
    assert decided(ask, "ask", [pattern], [], workspace=ROOT).allowed
    assert not decided(ask, "ask", [pattern], [ask.tool_name], workspace=ROOT).allowed
    assert decide(ask, "ask", [], [], workspace=ROOT) is None


def test_another_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="none of ask, deny, allow"):
        decide(bash("x"), "maybe", [], [])
