"""``Survey this repository``: what is here, from at most 12 tool calls in two steps."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Final

from crush_trio.models.scout import facts as f
from crush_trio.models.scout.manifests import MANIFESTS, Facts, read_manifest
from crush_trio.models.scout.outputs import (
    file_text,
    hits_of,
    paths_of,
    shell_failed,
    shell_output,
    tree_paths,
)
from crush_trio.models.scout.plan import Answer, Call, Plan, bash, view
from crush_trio.models.scout.search import TODO_PATTERN, todo_text

RECENT: Final = "git log -n 60 --date=short --relative --name-only --format=@%h%x09%ad%x09%s -- ."
MAIN: Final = (
    r"^(if __name__ == .__main__.|func main\(\)|(pub )?(async )?fn main\("
    r"|\s*public static void main\(|(static )?int main\()"
)
_MANIFESTS_READ: Final = 4
_SHOWN: Final = 8


def survey() -> Plan:
    """A Markdown report on the workspace."""
    tree, top, log, todos, mains = yield (
        Call("ls", {"path": "."}),
        Call("ls", {"path": ".", "depth": 1}),
        bash(RECENT, "See what was changed lately"),
        Call("grep", {"pattern": TODO_PATTERN}),
        Call("grep", {"pattern": MAIN}),
    )
    if not top.ok and not tree.ok:
        return f"This directory cannot be listed: {tree.text.strip()}"
    here = tree_paths(top.text)
    paths = list(dict.fromkeys([*tree_paths(tree.text), *here]))
    if not paths:
        return "This directory is empty (or everything in it is ignored)."
    readme = next((path for path in here if re.match(r"(?i)readme(\.\w+)?$", path)), None)
    manifests = [name for name in MANIFESTS if name in here][:_MANIFESTS_READ]
    inits = [path for path in here if path == "__init__.py"]
    reads = [path for path in (readme, *manifests, *inits) if path is not None]
    recent_files = (Call("glob", {"pattern": "**/*"}),) if shell_failed(log) else ()
    answers = yield (*(view(path, 400) for path in reads), *recent_files)
    texts = {
        path: file_text(found.text) for path, found in zip(reads, answers, strict=False) if found.ok
    }
    known = [read_manifest(name, texts[name]) for name in manifests if name in texts]
    sections = (
        _what(root_name(top.text), known, texts.get(readme or ""), texts.get("__init__.py")),
        f.sizes(tree, paths),
        _starts(root_name(top.text), known, paths, mains),
        _tests(known, paths, here),
        f.largest(tree, paths),
        _recent(log, answers[len(reads) :]),
        f"## Open TODOs\n\n{todo_text(todos, _SHOWN)}" if todos.ok else "",
    )
    return "\n\n".join(section for section in sections if section)


def root_name(tree: str) -> str:
    """The name of the directory a listing is about."""
    match = re.search(r"^ *- (.+?)/?$", tree, re.MULTILINE)
    return PurePosixPath(match[1]).name if match else "this directory"


def _what(root: str, known: list[Facts], readme: str | None, init: str | None) -> str:
    name = next((fact.name for fact in known if fact.name), root)
    about = [fact.about for fact in known if fact.about][:1]
    if readme:
        about.append(f.first_paragraph(readme))
    if init and (doc := re.match(r"(?s)(?:\s|#[^\n]*\n)*[rR]?(\"\"\"|''')(.*?)\1", init)):
        about.append(f.first_paragraph(doc[2]))
    kinds = " and ".join(dict.fromkeys(fact.kind for fact in known if fact.kind != "make"))
    kind = f"{kinds} project" if kinds else ("Python package" if init is not None else "directory")
    version = next((f", version {fact.version}" for fact in known if fact.version), "")
    lines = list(dict.fromkeys(line for line in about if line))
    missing = [] if lines else ["No README and no description says what it is for."]
    return "\n\n".join([f"# {name}", f"`{root}`: a {kind}{version}.", *lines, *missing])


def _starts(root: str, known: list[Facts], paths: list[str], mains: Answer) -> str:
    lines = [start for fact in known for start in fact.starts]
    for path in paths:
        package = path.removesuffix("__main__.py").rstrip("/").removeprefix("src/")
        if path.endswith("__main__.py") and not f.is_test(path):
            lines.append(f"`python -m {package.replace('/', '.') or root}` (`{path}`)")
    if mains.ok:
        lines += [
            f"`{hit.path}` line {hit.line}: `{hit.text[:60]}`"
            for hit in hits_of(mains.text)
            if not f.is_test(hit.path)
        ]
    lines += [f"`{path}`" for path in paths if re.fullmatch(r"s?bin/[^/]+", path)]
    if not lines:
        return "## Entry points\n\nNone found: it looks like a library."
    more = [f"… and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return "\n".join(["## Entry points", "", *(f"- {line}" for line in lines[:_SHOWN] + more)])


def _tests(known: list[Facts], paths: list[str], here: list[str]) -> str:
    tests = [path for path in paths if f.is_test(path) and not path.endswith("/")]
    runs = list(dict.fromkeys(run for fact in known for run in fact.tests))
    if not runs and any(path.endswith(".py") for path in tests):
        runs = ["tox"] if "tox.ini" in here else ["python -m pytest"]
    if not tests:
        return "## Tests\n\nNo test files found." + (
            f" `{runs[0]}` would run them." if runs else ""
        )
    where = f.most_common(path.rsplit("/", 1)[0] if "/" in path else "." for path in tests)
    text = f"## Tests\n\n{len(tests)} files, most of them in {where}."
    return text + (f" Run them with {' or '.join(f'`{run}`' for run in runs[:3])}." if runs else "")


def _recent(log: Answer, newest: tuple[Answer, ...]) -> str:
    title = "## Most recently changed\n\n"
    if newest:  # no git: the pattern's order is by time of change
        files = paths_of(newest[0].text)[:_SHOWN] if newest[0].ok else []
        listed = "\n".join(f"- `{path}`" for path in files)
        return f"{title}No git history here; the files changed last:\n\n{listed}" if files else ""
    lines = shell_output(log.text).splitlines()
    commits = [line[1:].split("\t") for line in lines if re.match(r"@\w+\t", line)]
    if not commits:
        return f"{title}No commit of the surrounding git repository touches this directory."
    parts = f.most_common(
        line.split("/")[0] + ("/" if "/" in line else "")
        for line in lines
        if line and not line.startswith(("@", "..."))
    )
    shown = "\n".join(
        f"- {date} `{commit}` {subject}" for commit, date, subject in commits[:_SHOWN]
    )
    return f"{title}Most often in the last {len(commits)} commits: {parts}.\n\n{shown}"
