"""``bash(PREFIX)`` on command lines of several commands, and redirections as writes."""

from __future__ import annotations

import sys
from pathlib import Path

import attrs
import pytest

from crush_trio.agent.ports import PermissionAsk
from crush_trio.tools.permission.patterns import decide
from crush_trio.tools.shell.judge import judge

PATH = "/usr/local/bin:/usr/bin:/bin"

ALLOWED = [
    (["bash(make)"], "make && make test"),
    (["bash(make)"], "make; make test || make clean"),
    (["bash(make)"], "make test 2>&1 | tail -20"),
    (["bash(make)"], "make > /dev/null 2>&1"),
    (["bash(make)"], "make\nmake test\n"),
    (["bash(make)"], "cd sub && make test"),
    (["bash(make)"], "ls; make | grep -v x"),
    (["bash(make)"], "test -f a.txt && make"),
    (["bash(git add)", "bash(git commit)"], "git add -A && git commit -m 'a; b'"),
    (["bash(make)", "write(*.log)"], "make > build.log"),
    (["bash(make)", "write"], "make >> sub/build.log 2>&1"),
    (["bash(make)"], "make < a.txt"),
]
NOT_ALLOWED = [
    (["bash(make)"], "make && rm x"),
    (["bash(make)"], "ls"),  # safe lines do not come here; a background job does
    (["bash(make)"], "ls | head"),
    (["bash(make)"], "make > build.log"),
    (["bash(make)", "write(*.txt)"], "make > build.log"),
    (["bash(make)", "write(*.log)"], "make > ../build.log"),
    (["bash(make)", "write(*.log)"], "make > link/build.log"),
    (["bash(make)", "write(*.log)"], "make > a.log > b.txt"),
    (["write(*.log)"], "make > build.log"),
    (["bash(make)", "write(*.log)"], "make > $x.log"),
    (["bash(make)"], "make && cat /etc/passwd"),
    (["bash(make)"], "make && cat < /etc/passwd"),
    (["bash(make)"], "make && git status"),  # in a shell nothing hardens it
    (["bash(make)"], "make && printf '%s' x"),
    (["bash(make)"], "cd / && make"),
    (["bash(make)"], "cd link && make"),
    (["bash(make)"], "make && cd sub"),
    (["bash(make)"], "make $(rm x)"),
    (["bash(make)"], "make; X=1 make"),
    (["bash(make)"], "make & make"),
    (["bash(make)"], "make | sh"),
    (["bash(make)"], "time make"),
    (["bash(make)"], "! make && make"),
    (["bash(make)"], "make && (make)"),
    (["bash(make)"], "make *; make"),
    (["bash(make)"], "make <<E; make\nx\nE"),
    (["bash(make)"], "make\u00a0x; make"),
    (["bash(make)"], "make\rrm x"),
]
DENIED = [
    ("bash(rm)", "ls && rm x"),
    ("bash(rm)", "$'rm' x"),
    ("bash(rm)", "$'\\x72m' x"),
    ("bash(rm)", "$'\\162m' x"),
    ("bash(rm)", "r\\\nm x"),
    ("bash(rm)", "$X y"),
    ("bash(rm)", "r${x}m y"),
    ("bash(rm)", "$(echo r)m y"),
    ("bash(rm)", "/bin/r? x"),
    ("bash(rm)", "r{m,} x"),
    ("bash(rm)", "{rm,-rf,x}"),
    ("bash(rm)", "f() { rm x; }; f"),
    ("bash(rm)", 'echo "$(rm x)"'),
    ("bash(rm)", "cat <<E\n$(rm x)\nE"),
    ("bash(rm)", "diff <(rm x) y"),
    ("bash(rm)", "echo $((a[$(rm x)]))"),
    ("bash(rm)", "eval 'r''m x'"),
    ("bash(rm)", 'bash -c "$X"'),
    ("bash(rm)", "nohup $X"),
    ("bash(rm)", "env A=1 nice -n 5 sh -c 'sh -c \"rm x\"'"),
    ("bash(rm)", "trap 'rm x' EXIT"),
    ("bash(rm)", "ls 'not closed"),
    ("bash(rm)", "case x in (x"),
    ("bash(rm)", "echo " + "a;" * 9000),
    ("bash(git push)", "git -C sub push"),
    ("bash(git push)", "git -c a=b --no-pager push origin"),
    ("bash(git push)", "cd sub && git --git-dir x push"),
    ("bash(git push)", "sh -c 'git -C sub push'"),
    ("bash(git push)", "timeout 5 git -C sub push"),
    ("bash(git push)", "git $X"),
    ("write(.env)", "echo x > .env"),
    ("write(.env)", "echo x >> sub/.env"),
    ("write(.env)", "echo x > ./sub/../.env"),
    ("write(.env)", "(echo x; for i in a; do echo y; done) &> .env"),
    ("write(/etc/**)", "echo x > /etc/passwd"),
    ("write(/etc/**)", "echo x > link/passwd"),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path.resolve() / "proj"
    (root / "sub").mkdir(parents=True)
    (root / "a.txt").write_text("x\n")
    (root / "link").symlink_to("/etc")
    return root


def ask(command: str, root: Path) -> PermissionAsk:
    """What `bash` asks for this line."""
    judged = judge(command, root, root, PATH)
    return PermissionAsk(
        *("bash", "execute", "", str(root), {}, command),
        why=judged.why,
        harmless=judged.harmless,
        writes=judged.writes,
    )


def test_a_line_is_allowed_if_every_command_and_every_write_is(root: Path) -> None:
    for rules, command in ALLOWED:
        decision = decide(ask(command, root), "deny", rules, [], workspace=root)
        assert decision is not None
        assert decision.allowed, command


def test_one_command_that_is_not_covered_is_enough_to_refuse_a_line(root: Path) -> None:
    for rules, command in NOT_ALLOWED:
        decision = decide(ask(command, root), "deny", rules, [], workspace=root)
        assert decision is not None
        assert not decision.allowed, command
    outside = attrs.evolve(ask("make && make test", root), inside=False)
    assert decide(outside, "ask", ["bash(make)"], [], workspace=root) is None


def test_a_denied_command_is_found_wherever_a_shell_would_find_it(root: Path) -> None:
    for rule, command in DENIED:
        decision = decide(ask(command, root), "allow", [], [rule], workspace=root)
        assert decision is not None
        assert not decision.allowed, command


def test_a_refusal_says_why_the_line_needed_permission(root: Path) -> None:
    decision = decide(ask("find . -delete", root), "deny", [], [], workspace=root)
    assert decision is not None
    assert "What needs permission in it is the argument '-delete' of find." in decision.reason


@pytest.mark.parametrize(
    "command",
    [
        pytest.param("echo " + "a b; " * 20_000, id="many words"),
        pytest.param("echo " + "a" * 100_000, id="one word"),
        pytest.param("echo " + "a'' " * 25_000, id="quotes"),
        pytest.param("sh -c " + " ".join(f"'a b{n}.c'" for n in range(600)), id="lines in words"),
        pytest.param("echo " + "a " * 4_000 + "> f", id="a file"),
    ],
)
def test_many_rules_cost_a_long_line_no_more_than_one(command: str) -> None:
    """They are looked at on the event loop: what one of them reads, the others do not again.

    Read again for each rule, the least of these takes nearly ten million calls.
    """
    rules = [each for n in range(40) for each in (f"bash(program{n} x)", f"write(a{n}/**)")]
    ask = PermissionAsk(
        tool_name="bash",
        action="execute",
        description="",
        path="/w",
        params={},
        target=command,
        inside=True,
    )
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    try:
        decide(ask, "ask", rules, rules, workspace=Path("/w"))
    finally:
        sys.setprofile(None)
    assert calls < 3_000_000
