"""What needs no permission: two corpora, what is read where, and what happens when it is run."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from crush_trio.limits import SAFE_COMMAND_BYTES, SAFE_COMMAND_STEPS
from crush_trio.tools.processes.environment import tool_environment
from crush_trio.tools.shell.grammar import agrees, described
from crush_trio.tools.shell.judge import Judgement, SafeLine, judge
from crush_trio.tools.shell.plain import NotPlain, Step, read_plain
from crush_trio.tools.shell.safe_git import hardened_environment
from crush_trio.tools.shell.safe_run import safe_argv, safe_environment
from tests.tools.shell.jail import build_jail, jail_path, lines_of, trace_of
from tests.tools.shell.mutated import mutated_lines

SEED = int(os.environ.get("CRUSH_TRIO_SHELL_SEED", "7"))
JUDGED = int(os.environ.get("CRUSH_TRIO_SHELL_LINES", "600"))
"""Lines that the generator makes; 100,000 are the long form."""
EXECUTED = int(os.environ.get("CRUSH_TRIO_SHELL_RUNS", "30"))
"""Of the safe ones among them these are run, and each twelfth or each safe line of the corpus."""
BATCH = 20
"""Lines run between two looks at the workspace."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return build_jail(tmp_path)


def judged(line: str, root: Path, directory: Path | None = None) -> Judgement:
    return judge(line, directory or root, root, jail_path(root))


def test_no_dangerous_line_is_safe(root: Path) -> None:
    lines = lines_of("unsafe_commands.txt")
    assert len(lines) > 1000
    assert [line for line in lines if judged(line, root).safe is not None] == []
    assert all(judged(line, root).why for line in lines), "each has a reason"


def test_what_people_use_to_look_around_is_safe(root: Path) -> None:
    lines = lines_of("safe_commands.txt")
    assert len(lines) > 200
    assert [(line, judged(line, root).why) for line in lines if not judged(line, root).safe] == []


def test_nothing_is_safe_outside_the_workspace_or_without_its_program(root: Path) -> None:
    lines = [line for line in lines_of("safe_commands.txt") if not line.startswith("cd")]
    for directory in (root.parent, Path("/"), Path(f"{root}-other")):
        assert [line for line in lines if judged(line, root, directory).safe is not None] == []
    inside = f"{root}:.:{root}/sub"
    names = [line for line in lines if judge(line, root, root, inside).safe is not None]
    assert all(line.startswith(("type", "command")) for line in names), names


def test_a_line_of_more_than_a_person_reads_needs_permission(root: Path) -> None:
    assert judged(" ; ".join(["ls"] * SAFE_COMMAND_STEPS), root).safe is not None
    assert judged(" ; ".join(["ls"] * (SAFE_COMMAND_STEPS + 1)), root).safe is None
    assert judged("echo " + "x" * (SAFE_COMMAND_BYTES - 5), root).safe is not None
    assert judged("echo " + "x" * (SAFE_COMMAND_BYTES - 4), root).safe is None


def test_the_program_that_runs_is_one_outside_the_workspace(root: Path) -> None:
    for line in ("ls", "cat a.txt", "git status", "rg x", "cd sub && find . | head"):
        safe = judged(line, root).safe
        assert safe is not None
        for step in safe.steps:
            assert os.path.isabs(step.program), line
            assert not Path(step.program).resolve().is_relative_to(root), line


def test_every_word_reaches_the_program_as_it_was_judged(root: Path) -> None:
    words = ["'", '"', "\\", "$(x)", "`x`", "a b", "*", "~", "!", "a;b", "#", "é", "-n", "x\ty"]
    quoted = " ".join(f"'{word}'" if word != "'" else "\\'" for word in words)
    safe = judged(f"printf '%s\\n' {quoted} | cat", root).safe
    assert safe is not None
    assert carry_out(safe, root).stdout.decode().split("\n") == [*words, ""]


def test_an_environment_changes_nothing_about_what_runs(root: Path) -> None:
    evil = {
        "BASH_ENV": str(root / "canary"),
        "ENV": str(root / "canary"),
        "BASH_FUNC_ls%%": "() { ./canary; }",
        "BASH_FUNC_type%%": "() { ./canary; }",
        "SHELLOPTS": "xtrace",
        "PS4": "$(./canary)",
        "LD_PRELOAD": str(root / "canary"),
        "GIT_EXTERNAL_DIFF": str(root / "canary"),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "core.fsmonitor",
        "GIT_CONFIG_VALUE_0": str(root / "canary"),
        "RIPGREP_CONFIG_PATH": str(root / "canary"),
        "CDPATH": "/",
        "VIRTUAL_ENV": str(root),
        "POSIXLY_CORRECT": "1",
    }
    for line in ("ls | cat", "type ls", "git status", "rg two", "cd sub && ls; pwd"):
        safe = judged(line, root).safe
        assert safe is not None
        env = safe_environment({**evil, "PATH": jail_path(root)}, safe, root)
        assert not env.keys() & evil.keys()
        assert (str(root) in env["PATH"]) == line.startswith("type"), line
        carry_out(safe, root, evil)
    assert not (root.parent / "sung").exists()


def carry_out(
    line: SafeLine, root: Path, extra: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a line as the tool does, with an environment that tries to spoil it."""
    env = tool_environment({"PATH": jail_path(root), "HOME": str(root.parent)}, extra or {})
    safe = safe_environment(env, line, root)
    if any(step.git for step in line.steps):
        safe = hardened_environment(safe)
    return subprocess.run(
        safe_argv(line),
        cwd=line.directory,
        env=safe,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
        check=False,
    )


def test_a_safe_line_leaves_no_trace_when_it_is_run(root: Path) -> None:
    """T27. The generator spoils lines of both corpora; what is still safe is really run."""
    corpus = lines_of("safe_commands.txt")
    made = [(line, judged(line, root).safe) for line in mutated_lines(SEED, JUDGED)]
    safe = [(line, found) for line, found in made if found is not None]
    assert JUDGED // 20 < len(safe) < JUDGED, "the generator makes both kinds"
    chosen = safe[:EXECUTED]
    for line in corpus[:: 1 if EXECUTED > 1000 else 12]:
        found = judged(line, root).safe
        assert found is not None, line
        chosen.append((line, found))
    before = trace_of(root)
    for start in range(0, len(chosen), BATCH):
        batch = chosen[start : start + BATCH]
        for _, found in batch:
            carry_out(found, root)
        assert trace_of(root) == before, [line for line, _ in batch]


def test_the_jail_shows_what_a_line_changes(root: Path) -> None:
    for line in ("./canary", "touch a.txt", "echo x > new", "chmod 600 a.txt", "PATH=. ls"):
        before = trace_of(root)
        subprocess.run(["/bin/bash", "-c", line], cwd=root, check=True)
        assert trace_of(root) != before, line
        (root.parent / "sung").unlink(missing_ok=True)


# Prints, for each line on stdin, the words that bash itself gives to each command of it.
READER = r"""
command_not_found_handle() {
  enable echo local
  local IFS=$'\x01'
  echo -n "x$*"$'\x02' >> "$out"
}
out=$1
PATH=/nonexistent
off=()
while read -r name; do
  case $name in enable|eval|read|builtin) ;; *) off+=("$name");; esac
done < <(compgen -b)
enable -n "${off[@]}"
while IFS= read -r -d '' line; do
  (eval -- "$line") </dev/null >/dev/null 2>&1
  end-of-line
done
"""
ODD = (
    "'%ls' x",
    "%ls",
    "echo a\\\nb",
    "x ] [",
    "x \\~ a\\ b",
    "x 'a'\"b\"\\'c 2>&1 d",
    "x ''",
    "if x",
)
"""Lines on which readings have differed, or might."""

READERS_OWN = {"enable", "eval", "read", "builtin"}


def test_bash_reads_a_plain_line_as_we_do(tmp_path: Path) -> None:
    """No command exists there, so bash shows each of them to us instead of running it."""
    wanted: dict[str, list[tuple[str, ...]]] = {}
    for line in (*ODD, *lines_of("safe_commands.txt"), *mutated_lines(SEED + 1, JUDGED // 5)):
        try:
            steps = read_plain(line)
        except NotPlain:
            continue
        names = {step.argv[0] for step in steps}
        files = any(not each.harmless for step in steps for each in step.redirects)
        if not files and not names & READERS_OWN and not any("/" in name for name in names):
            wanted[line] = [step.argv for step in steps]
    out = tmp_path / "out"
    subprocess.run(
        ["/bin/bash", "--norc", "-c", READER, "reader", str(out)],
        input="".join(f"{line}\0" for line in wanted).encode(),
        capture_output=True,
        timeout=600,
        check=False,
    )
    seen = out.read_bytes().decode().split("xend-of-line\x02")[:-1]
    assert len(seen) == len(wanted) > JUDGED // 50
    for (line, argvs), record in zip(wanted.items(), seen, strict=True):
        found = [tuple(each[1:].split("\x01")) for each in record.split("\x02")[:-1]]
        if "||" in line:  # not everything of it runs
            assert all(argv in argvs for argv in found), line
        else:
            assert sorted(found) == sorted(argvs), line


def test_either_reading_alone_sees_an_expansion() -> None:
    lines = lines_of("unsafe_commands.txt", "Substitution")
    assert len(lines) > 50
    for line in lines:
        with pytest.raises(NotPlain):
            read_plain(line)
        words = tuple(line.split())
        assert not agrees(line, (Step("", words),)), line
        assert not agrees(line, (Step("", tuple(word.strip("\"'") for word in words)),)), line


def test_no_line_breaks_the_reading(root: Path) -> None:
    for line in mutated_lines(SEED + 2, JUDGED // 3):
        judged(line, root)
        described(line)
