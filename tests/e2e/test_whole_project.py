"""A small project that is explored, tested, mended and tested again, through every tool."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.e2e.kit import Json, Server, Stream, is_end_of

RECEIPT = """\
from till.prices import price


def total(lines):
    return sum(price(name) for name, count in lines)
"""
PRICES = """\
PRICES = {"tea": 250, "bun": 180}


def price(name):
    return PRICES[name]
"""
TESTS = """\
import unittest

from till.receipt import total


class Receipts(unittest.TestCase):
    def test_a_line_counts_as_often_as_it_says(self):
        self.assertEqual(total([("tea", 2), ("bun", 1)]), 680)

    def test_a_scone_is_sold(self):
        self.assertEqual(total([("scone", 1)]), 320)
"""
RULES = "<html><body><h1>Rules</h1><p>A line counts <b>quantity times price</b>.</p></body></html>"
PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)
TESTING = {"command": f"{sys.executable} -B -m unittest -q", "description": "run the tests"}
TICKING = {
    "command": "while :; do echo tick; sleep 0.1; done",
    "description": "tick",
    "run_in_background": True,
}
OUTSIDE = Path("/usr/crush-trio-was-here")
LEAVING = {"command": f"touch {OUTSIDE}", "description": "leave the workspace"}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A web server on this machine with the rules and a list of prices."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "rules.html").write_text(RULES)
    (folder / "prices.csv").write_text("scone,320\n")
    handler = partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()
        thread.join()


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def lay_out(folder: Path) -> Path:
    """The project, with a mistake in it."""
    for name, text in (
        ("README.md", "# Till\n\nPrints receipts.\n"),
        ("till/__init__.py", ""),
        ("till/receipt.py", RECEIPT),
        ("till/prices.py", PRICES),
        ("tests/__init__.py", ""),
        ("tests/test_receipt.py", TESTS),
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "logo.png").write_bytes(PICTURE)
    return folder


def todos(*states: str) -> Json:
    """The call that says how far the plan has come."""
    plan = ("Look around", "Mend the total", "Sell scones")
    lines = [
        {"content": each, "status": state, "active_form": f"{each}…"}
        for each, state in zip(plan, states, strict=True)
    ]
    return {"tool": "todos", "input": {"todos": lines}}


def steps(pages: str, *, asks: bool) -> list[list[Json]]:
    """What the model does, step by step."""
    question = {
        "type": "yes_no",
        "question": "Sell scones, too?",
        "description": "A test wants them.",
    }
    return [
        [todos("in_progress", "pending", "pending"), {"tool": "ls", "input": {}}],
        [
            {"tool": "glob", "input": {"pattern": "**/*.py"}},
            {"tool": "grep", "input": {"pattern": "def total", "include": "*.py"}},
            {"tool": "view", "input": {"file_path": "till/receipt.py"}},
            {"tool": "view", "input": {"file_path": "till/prices.py"}},
            {"tool": "view", "input": {"file_path": "logo.png"}},
        ],
        [{"tool": "agent", "input": {"prompt": "Where do prices come from?"}}],
        [
            {"tool": "fetch", "input": {"url": f"{pages}/rules.html", "format": "markdown"}},
            {
                "tool": "download",
                "input": {"url": f"{pages}/prices.csv", "file_path": "data/prices.csv"},
            },
            {
                "tool": "agentic_fetch",
                "input": {"url": f"{pages}/rules.html", "prompt": "What does a line count?"},
            },
        ],
        [{"tool": "bash", "input": TESTING}],
        *([[{"tool": "question", "input": {"questions": [question]}}]] if asks else []),
        [
            todos("completed", "in_progress", "pending"),
            {
                "tool": "edit",
                "input": {
                    "file_path": "till/receipt.py",
                    "old_string": "price(name) for",
                    "new_string": "count * price(name) for",
                },
            },
            {
                "tool": "multiedit",
                "input": {
                    "file_path": "till/prices.py",
                    "edits": [
                        {"old_string": '"bun": 180', "new_string": '"bun": 180, "scone": 320'},
                        {"old_string": "PRICES = {", "new_string": "# In cents.\nPRICES = {"},
                    ],
                },
            },
            {
                "tool": "write",
                "input": {"file_path": "CHANGES.md", "content": "- Lines count, scones sell.\n"},
            },
        ],
        *([] if asks else [[{"tool": "bash", "input": LEAVING}]]),
        [{"tool": "bash", "input": TICKING}],
        [{"tool": "job_output", "input": {"shell_id": "001"}}],
        [{"tool": "job_kill", "input": {"shell_id": "001"}}],
        [
            {"tool": "bash", "input": TESTING},
            {"tool": "bash", "input": {"command": "ls till | wc -l", "description": "count"}},
            todos("completed", "completed", "completed"),
        ],
        [{"text": "Both tests pass."}],
    ]


SUB_AGENTS = {
    "sub_agents": [
        {
            "when": {"prompt_contains": "prices come"},
            "actions": [{"tool": "grep", "input": {"pattern": "PRICES"}}],
        },
        {"when": {"prompt_contains": "prices come"}, "actions": [{"text": "From till/prices.py."}]},
    ]
}
EVERY = {
    *("agent", "agentic_fetch", "bash", "download", "edit", "fetch", "glob", "grep"),
    *("job_kill", "job_output", "ls", "multiedit", "todos", "view", "write"),
}
ASKED = [
    *("fetch", "download", "agentic_fetch", "bash", "edit", "multiedit", "write", "bash", "bash"),
]
"""What needs permission, in this order; `ls till | wc -l` does not."""


@pytest.fixture(scope="module")
def till_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose user allows pages of this machine, and a network in the sandbox."""
    home = tmp_path_factory.mktemp("h")
    config = home / ".config" / "crush-trio" / "config.json"
    config.parent.mkdir(parents=True)
    options = {
        "fetch_allow": ["127.0.0.1"],
        "sandbox": {"mode": "off", "network": True},
    }
    config.write_text(json.dumps({"options": options}))
    server = Server(home).start()
    yield server
    assert server.stop() == 0


def model(folder: Path, pages: str, *, asks: bool) -> str:
    """The script for one of the two ways; its name."""
    path = folder / f"{'asking' if asks else 'allowed'}.json"
    first = {
        "when": {"prompt_contains": "line count"},
        "actions": [{"tool": "web_fetch", "input": {"url": f"{pages}/rules.html"}}],
    }
    last = {"when": {"prompt_contains": "line count"}, "actions": [{"text": "Quantity × price."}]}
    script = {
        "steps": [{"actions": step} for step in steps(pages, asks=asks)],
        "sub_agents": [*SUB_AGENTS["sub_agents"], first, last],
        "model": {"name": "till", "supports_attachments": True},
    }
    path.write_text(json.dumps(script))
    return f"script/{path}"


def check_project(project: Path) -> None:
    """The tests pass, run by hand, and what was to be written is there."""
    done = subprocess.run(
        [sys.executable, "-B", "-m", "unittest", "-q"], cwd=project, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (project / "data" / "prices.csv").read_text() == "scone,320\n"
    assert (project / "CHANGES.md").read_text() == "- Lines count, scones sell.\n"
    assert "count * price(name)" in (project / "till" / "receipt.py").read_text()


def check_record(server: Server, workspace: str, session: str, run: str) -> dict[str, list[Json]]:
    """What the journal holds of it; the results of its calls by tool."""
    found = server.get(f"/v1/workspaces/{workspace}/sessions/{session}/messages")
    parts = [part for message in found for part in message["parts"]]
    results: dict[str, list[Json]] = {}
    for part in parts:
        if part["type"] == "tool_result":
            results.setdefault(part["data"]["name"], []).append(part["data"])
    wrong = [each for group in results.values() for each in group if each.get("is_error")]
    assert not wrong
    files = server.get(f"/v1/workspaces/{workspace}/sessions/{session}/history")
    assert sorted((Path(each["path"]).name, each["version"]) for each in files) == [
        ("CHANGES.md", 0),
        ("CHANGES.md", 1),
        ("prices.py", 0),
        ("prices.py", 1),
        ("receipt.py", 0),
        ("receipt.py", 1),
    ]
    state = server.get(f"/v1/workspaces/{workspace}/sessions/{session}")
    assert [each["status"] for each in state["todos"]] == ["completed"] * 3
    runs = server.get(f"/v1/workspaces/{workspace}/runs")["runs"]
    children = [each for each in runs if each["parent_run"] == run]
    assert [each["outcome"] for each in children] == ["completed", "completed"]
    record = server.ended(run)
    assert record["processes"]["left"] == []
    return results


def check_results(results: dict[str, list[Json]]) -> None:
    """Each tool answered what it should have."""
    assert "till/receipt.py" in results["glob"][0]["content"]
    assert "Line 4" in results["grep"][0]["content"]
    assert results["view"][2]["mime_type"] == "image/png"
    assert "From till/prices.py." in results["agent"][0]["content"]
    assert "quantity times price" in results["fetch"][0]["content"]
    assert "Quantity × price." in results["agentic_fetch"][0]["content"]
    first, *_, last, counted = results["bash"]
    assert "FAILED (failures=1, errors=1)" in first["content"]
    assert "OK" in last["content"]
    assert counted["content"].startswith("3")
    assert "tick" in results["job_output"][0]["content"]


def test_a_project_is_mended_with_everything_allowed_in_the_sandbox(
    till_server: Server, pages: str
) -> None:
    """The real command, every tool but `question`, and nothing outside is touched."""
    server = till_server
    project = lay_out(server.home / "sandboxed")
    done = server.cli(
        *("run", "--output-format", "json", "-m", model(server.home, pages, asks=False)),
        *("--permission-mode", "allow", "--sandbox", "workspace-write", "Mend the till"),
        cwd=project,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    check_project(project)
    results = check_record(
        server, server.workspace(project), result["session_id"], result["run_id"]
    )
    assert results.keys() == EVERY
    check_results(results)
    assert not OUTSIDE.exists()
    assert "Exit code 1" in results["bash"][1]["content"]


def test_a_project_is_mended_while_a_second_client_answers_what_is_asked(
    till_server: Server, pages: str
) -> None:
    """The same over the API in the mode `ask`; each request is answered once, as it was shown."""
    server = till_server
    project = lay_out(server.home / "asked")
    workspace = server.workspace(project)
    session = server.session(workspace)
    with server.stream(workspace) as second:
        receipt = server.prompt(
            *(workspace, session, "Mend the till"),
            model=model(server.home, pages, asks=True),
            permission_mode="ask",
        )
        asked = answer_all(server, workspace, second, receipt["run_id"])
    assert asked == [*ASKED[:4], "question", *ASKED[4:]]
    assert server.ended(receipt["run_id"])["outcome"] == "completed"
    check_project(project)
    results = check_record(server, workspace, session, receipt["run_id"])
    assert results.keys() == EVERY | {"question"}
    check_results(results)
    assert "yes" in results["question"][0]["content"]


def answer_all(server: Server, workspace: str, stream: Stream, run: str) -> list[str]:
    """Say yes to everything until the run has ended; the tools that asked."""
    asked: list[str] = []
    while True:
        frame = stream.next()
        if is_end_of(frame, run):
            return asked
        request = frame.get("payload", {}).get("payload", {})
        if frame["type"] == "permission_request":
            asked.append(request["tool_name"])
            body = {"permission": request, "action": "allow"}
            path = f"/v1/workspaces/{workspace}/permissions/grant"
        elif frame["type"] == "question_batch_request":
            asked.append("question")
            answers = [{"request_id": each["id"], "yes": True} for each in request["questions"]]
            body = {"batch_request_id": request["id"], "responses": answers}
            path = f"/v1/workspaces/{workspace}/questions/answer"
        else:
            continue
        assert server.post(path, body)["resolved"]
