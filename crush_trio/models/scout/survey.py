"""``Survey this repository``: what is here, from at most 12 tool calls in two steps."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from crush_trio.models.scout import facts as f
from crush_trio.models.scout import outputs as o
from crush_trio.models.scout.manifests import MANIFESTS, Facts, read_manifest
from crush_trio.models.scout.plan import Answer, Call, Plan, bash, view
from crush_trio.models.scout.search import TODO_PATTERN, todo_text

LOG: Final = "git log -n 60 --date=short --name-only --format=@%h%x09%ad%x09%s -- ."
MAIN: Final = (
    r"^(if __name__ == .__main__.|func main\(\)|(pub )?(async )?fn main\("
    r"|\s*public static void main\(|(static )?int main\()"
)
_SOURCES: Final = "**/*{.c,[!c]}"  # every file but those that end with c, such as compiled .pyc
_SHOWN: Final = 8


def survey() -> Plan:
    """A Markdown report on the workspace."""
    tree, log, prefix, todos, mains = yield (
        Call("ls", {"path": ".", "ignore": sorted(o.GENERATED)}),
        bash(LOG, "See what was changed lately"),
        bash("git rev-parse --show-prefix", "See where in the repository this is"),
        Call("grep", {"pattern": TODO_PATTERN}),
        Call("grep", {"pattern": MAIN}),
    )
    if not tree.ok:
        return f"This directory cannot be listed: {tree.text.strip()}"
    paths, root = o.tree_paths(tree), tree.root.rsplit("/", 1)[-1]
    summary = tree.metadata.get("summary")
    if summary is None:
        return f"`{root}` is too large to be counted in the time a listing may take."
    here = summary["here"]
    if not here:
        return f"`{root}` is empty, or everything in it is ignored."
    readme = [path for path in here if re.fullmatch(r"(?i)readme(\.\w+)?", path)][:1]
    manifests = [name for name in MANIFESTS if name in here][:3]
    reads = [*readme, *manifests, *(path for path in here if path == "__init__.py")]
    tracked = not o.shell_failed(log) and o.shell_output(log).startswith("@")
    answers = yield (
        *(view(path, 400) for path in reads),
        *(() if tracked else (Call("glob", {"pattern": _SOURCES}),)),
        *((Call("glob", {"pattern": f.TEST_GLOB}),) if tree.metadata.get("truncated") else ()),
    )
    texts = {
        path: "\n".join(text for _, text in o.lines_of(found))
        for path, found in zip(reads, answers, strict=False)
    }
    known = [read_manifest(name, texts[name]) for name in manifests]
    more = list(answers[len(reads) :])
    newest = None if tracked else more.pop(0)
    tests = o.paths_of(more[0]) if more else [path for path in paths if path[-1] != "/"]
    sections = (
        _what(root, known, summary, [texts[path] for path in readme], texts.get("__init__.py")),
        _sizes(summary),
        _starts(root, known, paths, mains),
        _tests(root, known, tests, o.at_least(more[0]) if more else "", here),
        _largest(summary),
        _by_time(newest) if newest else _by_commit(log, prefix),
        f"## Open TODOs\n\n{todo_text(todos, _SHOWN)}",
    )
    return "\n\n".join(section for section in sections if section)


def _what(
    root: str, known: list[Facts], summary: Mapping[str, Any], readme: list[str], init: str | None
) -> str:
    about = [fact.about for fact in known] + [f.first_paragraph(text) for text in readme]
    if init and (doc := re.match(r"(?s)(?:\s|#[^\n]*\n)*[rR]?(\"\"\"|''')(.*?)\1", init)):
        about.append(f.first_paragraph(doc[2]))
    kinds = " and ".join(dict.fromkeys(fact.kind for fact in known if fact.kind))
    kind = f"{kinds} project" if kinds else "directory" if init is None else "Python package"
    main = f.main_language(summary)
    mostly = f", mostly {main}" if main and main not in kind else ""
    version = next((f", version {fact.version}" for fact in known if fact.version), "")
    lines = list(dict.fromkeys(filter(None, about)))
    missing = [] if lines else ["No README, manifest or docstring says what it is for."]
    name = next((fact.name for fact in known if fact.name), root)
    return "\n\n".join([f"# {name}", f"`{root}`: a {kind}{version}{mostly}.", *lines, *missing])


def _sizes(summary: Mapping[str, Any]) -> str:
    cut = "" if summary["complete"] else " at least: counting was stopped there"
    total = f"{f.count(summary['files'], 'file')}, {f.human(summary['bytes'])}{cut}."
    rows = [f"| {name} | {n} | {f.human(size)} |" for name, n, size in f.languages(summary)[:10]]
    table = ["| language | files | size |", "|---|--:|--:|", *rows]
    return "\n".join(["## Languages and size", "", total, "", *table])


def _starts(root: str, known: list[Facts], paths: list[str], mains: Answer) -> str:
    lines = [start for fact in known for start in fact.starts]
    for path in paths:
        package = path.removesuffix("__main__.py").rstrip("/").removeprefix("src/") or root
        importable = all(name.isidentifier() for name in package.split("/"))
        if path.rsplit("/", 1)[-1] == "__main__.py" and importable and not f.is_test(path):
            lines.append(f"`python -m {package.replace('/', '.')}` (`{path}`)")
    lines += [f"`{path}`" for path in paths if re.fullmatch(r"(?:bin|scripts)/[^/]+", path)]
    found = [
        hit
        for hit in o.hits_of(mains)
        if f.is_program(hit.path)
        and not o.is_generated(hit.path)
        and not hit.path.endswith("__main__.py")
    ]
    lines += [f"`{hit.path}` line {hit.line}: `{hit.text[:60]}`" for hit in found]
    if not lines:
        return "## Entry points\n\nNone found: it looks like a library, or like data."
    more = [f"… and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return "\n".join(["## Entry points", "", *(f"- {line}" for line in lines[:_SHOWN] + more)])


def _tests(root: str, known: list[Facts], paths: list[str], more: str, here: list[str]) -> str:
    tests = [path for path in paths if f.is_test(path)]
    runs = [run for fact in known for run in fact.tests]
    if not tests:
        return "## Tests\n\nNo test files found."
    if not runs and any(path.endswith(".py") for path in tests):
        pytest = (
            f"python -m pytest --pyargs {root}" if "__init__.py" in here else "python -m pytest"
        )
        runs = ["tox"] if "tox.ini" in here else [pytest]
    where = f.most_common(path.rsplit("/", 1)[0] if "/" in path else "." for path in tests)
    how = " or ".join(f"`{run}`" for run in dict.fromkeys(runs[:3]))
    run = f" Run them with {how}." if how else " How to run them is not said in a known manifest."
    return f"## Tests\n\n{more}{f.count(len(tests), 'file')}, most of them in {where}.{run}"


def _largest(summary: Mapping[str, Any]) -> str:
    parts = list(summary["directories"].items())[:5]
    lines = [
        f"- `{name}/` {f.count(files, 'file')}, {f.human(size)}" for name, (files, size) in parts
    ]
    lines += [f"- `{path}` {f.human(size)}" for path, size in summary["largest"][:5]]
    return "\n".join(["## Largest parts", "", *lines]) if lines else ""


def _by_time(newest: Answer) -> str:
    listed = "\n".join(f"- `{path}`" for path in o.paths_of(newest)[:_SHOWN])
    none = "## Most recently changed\n\nThis directory has no git history"
    return f"{none}; the files changed last:\n\n{listed}" if listed else f"{none}."


def _by_commit(log: Answer, prefix: Answer) -> str:
    lines = o.shell_output(log).splitlines()
    commits = [line[1:].split("\t", 2) for line in lines if re.match(r"@\w+\t.*\t", line)]
    inside = "" if o.shell_failed(prefix) else o.shell_output(prefix)
    listed = [line for line in lines if line and not line.startswith(("@", "... ["))]
    names = [line.removeprefix(inside) for line in listed]
    parts = f.most_common(name.split("/")[0] + "/" * ("/" in name) for name in names)
    shown = [f"- {date} `{commit}` {subject}" for commit, date, subject in commits[:_SHOWN]]
    title = f"Changed most in the newest {f.count(len(commits), 'commit')}: {parts}."
    return "\n".join(["## Most recently changed", "", title, "", *shown])
