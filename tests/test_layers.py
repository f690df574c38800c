"""Who may import whom, where nurseries are opened, and what stays out of which layer.

The tables come first; a new layer, nursery or exception is one line in one of them, with its
reason. What they say is drawn in docs/architecture.md.
"""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "crush_trio"

# Layer → prefixes of our modules that its files may import, besides its own and limits.
LAYERS: dict[str, tuple[str, ...]] = {
    "limits": (),
    "protocol": (),
    "dispatch": ("protocol",),
    # Connections to other servers, for whoever has to ask one.
    "http": ("protocol",),
    "agent": ("dispatch", "protocol"),
    "models": ("agent.ports", "http", "protocol"),
    "tools": ("agent.ports", "http", "protocol"),
    "store": ("dispatch", "protocol"),
    # Feed and readers stand on the store's contract alone, whichever store is behind it.
    "journal": ("protocol", "store.contract", "store.encoding"),
    "host": ("agent", "dispatch", "journal", "protocol", "store.contract"),
    # The contract's ports and the journal's readers are what routes read records and events from.
    "server": ("host", "journal", "protocol", "store.contract"),
    # What may be fetched is read as the tools read it.
    "config": ("http.hosts", "protocol"),
    "client": ("protocol",),
    "cli": ("client", "config", "protocol"),
    "__main__": ("cli.main",),
    "__init__": (),
}

# File → what it may import beyond its layer, because somebody has to.
ALSO: dict[str, tuple[str, ...]] = {
    # The composition root puts the parts together; its kit is what a workspace's runs are given.
    "server/serve.py": ("config", "http", "models", "store", "tools"),
    "server/kit.py": ("agent.ports", "config", "models", "tools"),
    # What a run may touch, from the configuration to what confines its commands.
    "server/sandboxes.py": ("agent.ports", "tools"),
    # From what is configured to a model: the same work as the kit's, in files of their own.
    "server/providers/known.py": ("config", "models"),
    "server/providers/access.py": ("config", "models"),
    "server/providers/naming.py": ("models",),
    "server/providers/local.py": ("models",),
    "server/providers/choosing.py": ("config",),
    "server/providers/targets.py": ("config", "models"),
    "server/providers/models.py": ("agent.ports", "config", "http", "models"),
    # A checkup chooses a model as a run would, and looks at it more closely.
    "server/checkup.py": ("config", "models"),
    # Changes of the configuration, made over the API or seen in its files.
    "server/settings.py": ("config",),
    "server/routes/config.py": ("config",),
    # `config check` knows which providers there are, and which variables hold their keys.
    "cli/config.py": ("models.catalogue", "tools.permission.names"),
    # … and the doctor checks the same.
    "cli/doctor_here.py": ("models.catalogue", "tools.permission.names"),
    "cli/doctor_sandbox.py": ("tools.sandbox",),
    # The command that is the server; imported when it runs, see LAZY.
    "cli/serve.py": ("server.options", "server.serve"),
}

# Imports of ours that must stand inside a function: they would load a server into every command.
LAZY = ("server",)

# Files that may open a nursery, and whose children it holds.
NURSERIES: dict[str, str] = {
    "agent/asking.py": "the clocks of one model request: its open text, the wait of a retry",
    "cli/run_flow.py": "one followed run: its events and the signals of its terminal",
    "cli/kind_flow.py": "a command that waits for a run, and the signals of its terminal",
    "cli/watch_flow.py": "one watched stream and the signals of its terminal",
    "client/follow.py": "inbox and outbox of one stream",
    "client/websocket.py": "inbox and outbox of one websocket",
    "host/host.py": "one owner task per open workspace",
    "host/runs/shell_run.py": "the clock beside a person's command: its output so far",
    "host/workspace.py": "one drain task per busy session, and the workspace's own work",
    "models/local/finding.py": "the local servers that are asked at once, and their models",
    "server/edge/hypercorn_fixes.py": "the connections of one listener",
    "server/routes/runs.py": "one waiting answer: the run's end and the server's",
    "server/routes/stream.py": "inbox and outbox of one websocket",
    "server/streams/many.py": "inbox, orders and outboxes of one socket with several workspaces",
    "server/serve.py": "the server's services and its signals",
    "tools/hooks/running.py": "the hooks of one moment, side by side",
    "tools/processes/command_output.py": "the output readers of one process",
    "tools/processes/run_processes.py": "the ends of one run's commands, side by side",
}

# Third-party or standard module → the layers that may know it.
ONLY_IN: dict[str, tuple[str, ...]] = {
    "apsw": ("store",),
    "bs4": ("tools",),
    "cattrs": ("protocol",),
    "click": ("cli",),
    "httpx2": ("http", "models", "tools"),
    "hypercorn": ("server",),
    "markdownify": ("tools",),
    "quart": ("server",),
    "quart_trio": ("server",),
    "rich": ("cli",),
    "sqlite3": ("store",),
    "trio_websocket": ("client",),
    "werkzeug": ("server",),
}
NOWHERE = ("asyncio", "anyio", "requests")
PURE = ("limits", "protocol", "dispatch")  # layers without Trio

# What `--help`, `--version` and completion must not load: each costs tens of milliseconds.
HEAVY = ("trio", "attrs", "attr", "cattrs", "quart", "hypercorn", "httpx", "httpx2", "asyncio")

MOST_LINES = {"crush_trio": 400, "scripts": 400, "tests": 500}  # tests hold tables of examples

SQL = re.compile(
    r"\b(SELECT\s.+\sFROM|INSERT\s+(OR\s+\w+\s+)?INTO|DELETE\s+FROM|UPDATE\s+\w+\s+SET|"
    r"(CREATE|DROP|ALTER)\s+(TABLE|INDEX|TRIGGER)|PRAGMA\s+\w+|BEGIN\s+IMMEDIATE)\b",
    re.DOTALL,
)


def _name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def _layer(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_bytes()) for path in FILES}


def _imports(path: Path) -> Iterator[tuple[str, ast.stmt]]:
    """Every module a file imports, in full, with the statement that does it."""
    package = ["crush_trio", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                full = f"{module}.{alias.name}"
                yield (full if _is_module(full) else module), node


def _is_module(full: str) -> bool:
    path = ROOT.joinpath(*full.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def _ours(path: Path) -> Iterator[tuple[str, ast.stmt]]:
    for module, node in _imports(path):
        if module.startswith("crush_trio."):
            yield module.removeprefix("crush_trio."), node


def _outside(path: Path) -> set[str]:
    tops = {module.split(".")[0] for module, _ in _imports(path)}
    return tops - {"crush_trio", "__future__"}


def _below(module: str, prefixes: tuple[str, ...]) -> bool:
    return any(module == prefix or module.startswith(f"{prefix}.") for prefix in prefixes)


def test_every_file_belongs_to_a_layer() -> None:
    assert {_layer(path) for path in FILES} <= set(LAYERS)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_imports_nothing_from_above(layer: str) -> None:
    wrong = [
        f"{_name(path)}:{node.lineno} imports {module}"
        for path in FILES
        if _layer(path) == layer
        for module, node in _ours(path)
        if not _below(module, (layer, "limits", *LAYERS[layer], *ALSO.get(_name(path), ())))
    ]
    assert wrong == []


def test_what_is_heavy_is_imported_only_when_its_command_runs() -> None:
    wrong = [
        f"{_name(path)}:{node.lineno} imports {module} at the top"
        for path in FILES
        if _layer(path) == "cli"
        for module, node in _ours(path)
        if _below(module, LAZY) and node in TREES[path].body
    ]
    assert wrong == []


def test_nurseries_are_opened_in_the_listed_files_only() -> None:
    openers = {
        _name(path)
        for path in FILES
        for node in ast.walk(TREES[path])
        if isinstance(node, ast.Attribute) and node.attr == "open_nursery"
    }
    assert openers - set(NURSERIES) == set(), "add the file and whose children its nursery holds"
    present = {name for name in NURSERIES if (PACKAGE / name).is_file()}
    assert present - openers == set(), "these no longer open one; remove them from the list"


def test_nothing_is_started_outside_a_nursery() -> None:
    banned = {"spawn_system_task", "add_background_task", "create_task"}
    wrong = [
        f"{_name(path)}:{node.lineno} {node.attr}"
        for path in FILES
        for node in ast.walk(TREES[path])
        if isinstance(node, ast.Attribute) and node.attr in banned
    ]
    assert wrong == []


@pytest.mark.parametrize("path", [p for p in FILES if _layer(p) in PURE], ids=_name)
def test_pure_layers_know_no_trio(path: Path) -> None:
    assert _outside(path) & {"trio", "sniffio", "outcome"} == set()


def test_libraries_stay_in_their_layers() -> None:
    wrong = [
        f"{_name(path)} imports {top}"
        for path in FILES
        for top in _outside(path)
        if top in NOWHERE or _layer(path) not in ONLY_IN.get(top, (_layer(path),))
    ]
    assert wrong == []


@functools.cache
def _docstrings(tree: ast.Module) -> set[ast.expr]:
    bodies = [tree.body] + [
        node.body
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return {
        statement.value for body in bodies for statement in body if isinstance(statement, ast.Expr)
    }


def test_sql_is_written_in_the_store_only() -> None:
    wrong = [
        f"{_name(path)}:{node.lineno} {node.value[:40]!r}"
        for path in FILES
        if _layer(path) != "store"
        for node in ast.walk(TREES[path])
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node not in _docstrings(TREES[path])
        and SQL.search(node.value)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "text",
    ["SELECT id FROM runs", "INSERT OR IGNORE INTO runs", "PRAGMA synchronous", "DELETE FROM runs"],
)
def test_sql_is_recognised(text: str) -> None:
    assert SQL.search(text)
    assert not SQL.search(text.lower().replace("_", " "))


def test_every_library_imported_is_a_declared_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {
        _normal(re.split(r"[\s<>=!~;\[]", line, maxsplit=1)[0]) for line in project["dependencies"]
    }
    providers = importlib.metadata.packages_distributions()
    imported = {top for path in FILES for top in _outside(path)} - sys.stdlib_module_names
    undeclared = {
        top
        for top in imported
        if not {_normal(name) for name in providers.get(top, [top])} & declared
    }
    assert undeclared == set()


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("folder", MOST_LINES)
def test_no_file_is_too_long_to_read_at_once(folder: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {count} lines"
        for path in (ROOT / folder).rglob("*.py")
        if (count := len(path.read_text().splitlines())) > MOST_LINES[folder]
    ]
    assert wrong == []


LIGHT = [
    module
    for module in ("crush_trio", "crush_trio.cli.main", "crush_trio.limits")
    if _is_module(module)
]


@pytest.mark.parametrize("module", LIGHT)
def test_the_entry_point_loads_nothing_heavy(module: str) -> None:
    """Also guards `--help`, `--version` and completion, which import no more than this."""
    code = f"import sys, {module}; print(*sorted({{n.split('.')[0] for n in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert set(done.stdout.split()) & set(HEAVY) == set()
