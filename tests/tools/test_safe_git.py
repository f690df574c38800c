"""Git without permission: a closed table, and a hostile repository in which nothing may run."""

# ruff: noqa: ASYNC221
# A test may block for a moment, and other processes have no event to wait for.

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from crush_trio.agent.ports import Decision
from crush_trio.tools.shell.bash import BashTool
from crush_trio.tools.shell.judge import judge, program_on
from crush_trio.tools.shell.safe_git import filter_names
from tests.tools.desk import Desk

SAFE = [
    "git status",
    "git  status   --short",
    "git status -sb",
    "git status --porcelain=v2 --branch",
    "git status -uno",
    "git status --untracked-files=all",
    "git --no-pager status",
    "git status src",
    "git status -- src/a.py",
    "git log",
    "git log -3",
    "git log -n 3",
    "git log -n3 --oneline --graph --all",
    "git log --max-count=5 main..topic",
    "git log HEAD~2",
    "git log HEAD^",
    "git log --stat -- src",
    "git log '--format=%h %s'",
    "git log --pretty=format:%h",
    "git log --since=yesterday --author=ana",
    "git diff --stat",
    "git diff --stat --cached",
    "git diff --stat HEAD~1 -- src",
    "git ls-files",
    "git ls-files '*.py'",
    "git ls-files -mo --exclude-standard",
    "git rev-parse HEAD",
    "git rev-parse --abbrev-ref HEAD",
    "git rev-parse --short=8 HEAD",
    "git rev-parse --show-toplevel",
]
UNSAFE = [
    "git",
    "git push",
    "git diff",
    "git diff HEAD",
    "git show",
    "git config --list",
    "git grep x",
    "git commit -m x",
    "git log -p",
    "git log --patch",
    "git status; rm -rf x",
    "git status && rm x",
    "git status | sh",
    "git status & rm x",
    "git status\nrm x",
    "git status\rrm x",
    "git log $(rm x)",
    "git log `rm x`",
    'git log "$(rm x)"',
    "git log $HOME",
    "git log > /tmp/x",
    "git log < /tmp/x",
    "git log {a,b}",
    "git ls-files *.py",
    "git ls-files ~",
    "git log # x",
    "git log \\\nx",
    "GIT_DIR=/tmp git status",
    "GIT_EXTERNAL_DIFF=x git diff --stat",
    "env git status",
    "/usr/bin/git status",
    "./git status",
    "Git status",
    "git -c core.fsmonitor=x status",
    "git -C /tmp status",
    "git -Cx status",
    "git --git-dir=/tmp/x status",
    "git --git-dir /tmp/x status",
    "git --work-tree=/ status",
    "git --exec-path=/tmp status",
    "git --config-env=a=b status",
    "git -p status",
    "git --paginate log",
    "git log --output=/tmp/x",
    "git log --output /tmp/x",
    "git log -o/tmp/x",
    "git log --ext-diff",
    "git diff --stat --ext-diff",
    "git diff --stat --textconv",
    "git diff --stat --no-index a b",
    "git diff --stat -O/tmp/x",
    "git diff --stat --output=x",
    "git log --show-signature",
    "git log --format=%G?",
    "git log '--pretty=format:%h %GK'",
    "git log --pretty=evil",
    "git log -n",
    "git log -n x",
    "git log -L1,2:a",
    "git log -G x",
    "git status /etc",
    "git status ..",
    "git status ../x",
    "git status src/../../x",
    "git status :/",
    "git status ':(top)x'",
    "git status -- ../x",
    "git status -- /etc/passwd",
    "git diff --stat /etc/passwd /etc/group",
    "git diff --stat link/passwd",
    "git log HEAD:../x",
    "git ls-files -X /etc/passwd",
    "git ls-files --exclude-from=/etc/passwd",
    "git ls-files --recurse-submodules",
    "git ls-files ''",
    "git rev-parse --parseopt",
    "git rev-parse --sq-quote x",
    "git rev-parse --git-path x",
    "git status -v",
    "git status --ignore-submodules=none",
    "git 'status",
    'git "status',
    "git\tstatus\x00",
    "git status\u2028rm".replace("\u2028", "\x0b"),
    "",
    "  ",
]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    root = Path(os.path.realpath(tmp_path)) / "ws"
    (root / "src").mkdir(parents=True)
    (root / "link").symlink_to("/etc")
    return root


@pytest.mark.parametrize("command", SAFE)
def test_a_command_of_the_table_is_safe(command: str, workspace: Path) -> None:
    assert judge(command, workspace, workspace, os.environ["PATH"]).safe is not None


@pytest.mark.parametrize("command", UNSAFE)
def test_every_other_command_needs_permission(command: str, workspace: Path) -> None:
    assert judge(command, workspace, workspace, os.environ["PATH"]).safe is None


def test_outside_the_workspace_nothing_is_safe(workspace: Path) -> None:
    path = os.environ["PATH"]
    assert judge("git status", workspace / "src", workspace, path).safe is not None
    for outside in (workspace.parent, Path("/"), Path(f"{workspace}-other")):
        assert judge("git status", outside, workspace, path).safe is None


def test_a_repository_that_leads_out_of_the_workspace_needs_permission(workspace: Path) -> None:
    path, secret = os.environ["PATH"], workspace.parent / "secret"
    secret.write_text("machine x password y\n")
    git = workspace / ".git"
    for name in ("packed-refs", "shallow", "rebase-merge/onto", "refs", "objects/info/alternates"):
        (git / name).parent.mkdir(parents=True, exist_ok=True)
        assert judge("git log", workspace, workspace, path).safe is not None, name
        (git / name).symlink_to(secret)
        assert judge("git log", workspace, workspace, path).safe is None, name
        assert judge("git log", workspace / "src", workspace, path).safe is None, name
        (git / name).unlink()
    (git / "HEAD").symlink_to("refs")  # as it was made once
    assert judge("git log", workspace, workspace, path).safe is not None


def test_another_repository_than_the_workspaces_own_needs_permission(workspace: Path) -> None:
    path, src = os.environ["PATH"], workspace / "src"
    other = workspace.parent / "other" / ".git"
    linked = other / "worktrees" / "src"
    linked.mkdir(parents=True)
    for leads_to in (other, linked):
        (src / ".git").write_text(f"gitdir: {leads_to}\n")
        assert judge("git log", src, workspace, path).safe is None
        assert judge("cd src && git log", workspace, workspace, path).safe is None
    (linked / "gitdir").write_text(f"{src / '.git'}\n")  # a worktree that git itself has made
    assert judge("git log", src, workspace, path).safe is not None
    (linked / "gitdir").write_text(f"{workspace / '.git'}\n")
    assert judge("git log", src, workspace, path).safe is None
    (src / ".git").unlink()
    (src / ".git").symlink_to(other)
    assert judge("git log", src, workspace, path).safe is None


def test_a_git_inside_the_workspace_is_not_the_git_that_runs(workspace: Path) -> None:
    fake = workspace / "git"
    fake.write_text("#!/bin/sh\n")
    fake.chmod(0o755)
    assert program_on("git", f"{workspace}:.:", workspace) is None
    found = program_on("git", f"{workspace}:/usr/bin:/bin:/usr/local/bin", workspace)
    assert found is not None
    assert not found.startswith(str(workspace))


def test_filter_drivers_are_found_by_name_and_a_moved_work_tree_is_refused() -> None:
    names = "core.bare\0filter.evil.clean\0filter.a.b=c.process\0filter.evil.required\0"
    assert filter_names(names) == frozenset({"evil", "a.b=c"})
    for key in ("core.worktree", "extensions.partialClone", "remote.origin.promisor"):
        assert filter_names(f"{names}{key}\0") is None


def sign_head(root: Path) -> None:
    """Give the last commit a signature, so that git has something to have verified."""
    commit = subprocess.run(
        ["git", "cat-file", "commit", "HEAD"], cwd=root, capture_output=True, check=True
    ).stdout
    head, _, message = commit.partition(b"\n\n")
    armour = b"\ngpgsig -----BEGIN PGP SIGNATURE-----\n \n eA==\n -----END PGP SIGNATURE-----"
    made = subprocess.run(
        ["git", "hash-object", "-t", "commit", "-w", "--stdin"],
        cwd=root,
        input=head + armour + b"\n\n" + message,
        capture_output=True,
        check=True,
    ).stdout
    git(root, "update-ref", "HEAD", made.decode().strip())


def git(root: Path, *arguments: str) -> None:
    identity = {
        f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    environ = {"PATH": os.environ["PATH"], "HOME": str(root.parent), **identity}
    subprocess.run(["git", *arguments], cwd=root, env=environ, check=True, capture_output=True)


def hostile(desk: Desk, traces: Path) -> None:
    """A repository whose every configured program leaves a trace under ``traces``."""
    traces.mkdir()

    def leave(name: str, after: str = "cat") -> str:
        script = desk.root.parent / f"evil-{name}"
        script.write_text(f"#!/bin/sh\ntouch {traces}/{name}\n{after}\n")
        script.chmod(0o755)
        return str(script)

    git(desk.root, "init", "-q")
    desk.write("a.txt", "one\n")
    desk.write("b.bin", "two\n")
    git(desk.root, "add", "-A")
    git(desk.root, "commit", "-qm", "first")
    desk.write("a.txt", "one, changed\n")
    git(desk.root, "commit", "-qam", "second")
    sign_head(desk.root)
    desk.write(".gitattributes", "* filter=evil diff=evil\n*.bin filter=process\n")
    desk.write(".git/info/attributes", "*.txt filter=evil diff=evil\n")
    settings = {
        "core.fsmonitor": leave("fsmonitor"),
        "core.pager": leave("pager"),
        "pager.log": leave("pager-log"),
        "pager.status": leave("pager-status"),
        "core.sshCommand": leave("ssh"),
        "core.editor": leave("editor"),
        "core.hooksPath": str(desk.root / "hooks"),
        "diff.external": leave("external", "true"),
        "diff.evil.textconv": leave("textconv", 'cat "$1"'),
        "diff.evil.command": leave("command", "true"),
        "filter.evil.clean": leave("clean"),
        "filter.evil.smudge": leave("smudge"),
        "filter.evil.required": "true",
        "filter.process.process": leave("process"),
        "gpg.program": leave("gpg"),
        "log.showSignature": "true",
        "format.pretty": "%h %G? %s",
        "alias.status": f"!{leave('alias')}",
        "alias.log": f"!{leave('alias')}",
        "credential.helper": leave("credential"),
        "core.untrackedCache": "true",
    }
    for key, value in settings.items():
        git(desk.root, "config", key, value)
    for hook in ("post-index-change", "post-checkout", "pre-commit"):
        desk.write(f"hooks/{hook}", f"#!/bin/sh\ntouch {traces}/hook\n").chmod(0o755)
    # Of the same size and another time, so that git has to look at the contents.
    for name, content in (("a.txt", "ONE, CHANGED\n"), ("b.bin", "TWO\n")):
        desk.write(name, content)
        os.utime(desk.root / name, (1, 1))


async def test_nothing_of_a_hostile_repository_runs_without_permission(
    desk: Desk, tmp_path: Path
) -> None:
    traces = tmp_path / "traces"
    hostile(desk, traces)
    # The trap works: unprotected, git runs what the repository names.
    subprocess.run(["git", "status"], cwd=desk.root, capture_output=True, check=False)
    subprocess.run(["git", "diff"], cwd=desk.root, capture_output=True, check=False)
    subprocess.run(["git", "log", "-p"], cwd=desk.root, capture_output=True, check=False)
    subprocess.run(["git", "log", "-1"], cwd=desk.root, capture_output=True, check=False)
    sprung = {path.name for path in traces.iterdir()}
    assert {"fsmonitor", "clean", "process", "gpg"} <= sprung
    assert sprung & {"external", "command", "textconv"}
    for path in traces.iterdir():
        path.unlink()
    desk.decision = Decision(False, "no")
    for command in (
        "git status",
        "git status --short",
        "git --no-pager log --stat",
        "git log -n 5",
        "git diff --stat",
        "git diff --stat HEAD~1",
        "git ls-files -m",
        "git rev-parse HEAD",
    ):
        for name in ("a.txt", "b.bin"):
            os.utime(desk.root / name, (2, 2))
        result = await desk.call(BashTool(), description="x", command=command)
        assert (result.is_error, result.denied) == (False, False), (command, result.content)
        assert "Exit code" not in result.content, (command, result.content)
    assert desk.asks == []
    assert [path.name for path in traces.iterdir()] == []


async def test_a_repository_cannot_have_names_shown_from_a_file_elsewhere(
    desk: Desk, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("a secret <a@b>\n")
    git(desk.root, "init", "-q")
    git(desk.root, "commit", "-q", "--allow-empty", "-m", "first")
    git(desk.root, "config", "mailmap.file", str(elsewhere))
    result = await desk.call(BashTool(), description="", command="git log --format=%aN")
    assert result.content.startswith("a@b\n")


async def test_a_repository_with_a_hostile_submodule_runs_nothing(
    desk: Desk, tmp_path: Path
) -> None:
    inner = Desk(desk.root / "sub", desk.processes)
    inner.root.mkdir()
    git(desk.root, "init", "-q")
    traces = tmp_path / "traces"
    hostile(inner, traces)
    for path in traces.iterdir():
        path.unlink()
    desk.write(".gitmodules", '[submodule "sub"]\n\tpath = sub\n\turl = ./sub\n\tignore = none\n')
    git(desk.root, "add", ".gitmodules")
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD~1"], cwd=inner.root, capture_output=True, text=True, check=True
    ).stdout.strip()
    git(desk.root, "update-index", "--add", "--cacheinfo", f"160000,{commit},sub")
    git(desk.root, "commit", "-qm", "x")

    def spring() -> set[str]:
        for name in ("a.txt", "b.bin"):
            os.utime(inner.root / name, (2, 2))
        subprocess.run(["git", "status"], cwd=desk.root, capture_output=True, check=False)
        sprung = {path.name for path in traces.iterdir()}
        for path in traces.iterdir():
            path.unlink()
        return sprung

    assert {"fsmonitor", "clean"} <= spring(), "the trap works"
    for name in ("a.txt", "b.bin"):
        os.utime(inner.root / name, (3, 3))
    for command in ("git status", "git diff --stat", "git log --stat", "git ls-files -m"):
        result = await desk.call(BashTool(), description="x", command=command)
        assert "Exit code" not in result.content, (command, result.content)
    assert [path.name for path in traces.iterdir()] == []


async def test_a_repository_that_moves_its_work_tree_needs_permission(desk: Desk) -> None:
    git(desk.root, "init", "-q")
    git(desk.root, "config", "core.worktree", "/etc")
    desk.decision = Decision(False, "no")
    result = await desk.call(BashTool(), description="x", command="git status")
    assert (result.denied, len(desk.asks)) == (True, 1)


async def test_the_users_own_work_is_shown(desk: Desk) -> None:
    git(desk.root, "init", "-q", "-b", "main")
    desk.write("a.txt", "one\n")
    git(desk.root, "add", "-A")
    git(desk.root, "commit", "-qm", "the first one")
    desk.write("a.txt", "two\n")
    result = await desk.call(BashTool(), description="x", command="git status --short")
    assert result.content == f" M a.txt\n\n<cwd>{desk.root}</cwd>"
    result = await desk.call(BashTool(), description="x", command="git log --format=%s")
    assert "the first one" in result.content
    result = await desk.call(BashTool(), description="x", command="git ls-files '*.txt'")
    assert "a.txt" in result.content
    assert desk.asks == []
