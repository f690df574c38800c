"""Limits through the real server and the real command line."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.kit import Json, Server, script

PRICES: Json = {"cost_per_1m_in": 1.0, "cost_per_1m_out": 1e6}
# It would take a quarter of an hour.
POUR: list[Json] = [{"text": "abcd", "tokens": 100_000, "every_ms": 10}]
PINGS: list[Json] = [
    {"text": "so far"},
    {"usage_so_far": {"input_tokens": 7}, "times": 100_000, "every_ms": 50},
]
CASES: list[tuple[str, float, list[Json]]] = [
    ("max_output_tokens", 20, POUR),
    ("max_cost_usd", 20.0, POUR),
    ("timeout_s", 0.5, POUR),
    ("idle_timeout_s", 0.5, PINGS),
    ("max_tool_calls", 1, [{"tool": "ls"}, {"tool": "ls"}]),
    ("max_steps", 1, [{"text": "so far"}, {"tool": "ls"}]),
]


def test_each_limit_ends_a_run_while_it_goes_on(server: Server, project: Path) -> None:
    """Contract 3 `limits`: all at once, each in its session, with its reason and what was said."""
    workspace = server.workspace(project)
    runs = {}
    for name, value, actions in CASES:
        model = script(project / f"{name}.json", actions, then="repeat", model=PRICES)
        prompt = server.prompt(
            workspace, server.session(workspace), "go", model=model, limits={name: value}
        )
        runs[name] = prompt["run_id"]
    records = {name: server.ended(run) for name, run in runs.items()}
    for name, record in records.items():
        assert record["outcome"] == "limited"
        assert record["error"]["code"] == name.removesuffix("_s")
        session = record["session_id"]
        messages = server.get(f"/v1/workspaces/{workspace}/sessions/{session}/messages")
        calls = [p["data"]["id"] for m in messages for p in m["parts"] if p["type"] == "tool_call"]
        results = [
            p["data"]["tool_call_id"]
            for m in messages
            for p in m["parts"]
            if p["type"] == "tool_result"
        ]
        assert calls == results
        assert messages[-1]["parts"][-1]["data"]["message"] == "Limit reached"
        again = server.prompt(workspace, session, "list")["run_id"]
        assert server.ended(again)["outcome"] == "completed"
    for name in ("max_output_tokens", "max_cost_usd"):
        assert records[name]["text"] == "abcd" * 21
        assert records[name]["usage"]["output_tokens"] == 21
    assert records["timeout_s"]["text"].startswith("abcd")
    assert records["idle_timeout_s"]["text"] == "so far"
    assert records["idle_timeout_s"]["usage"]["input_tokens"] == 7


def test_a_limited_run_exits_6_with_what_it_said(server: Server, project: Path) -> None:
    """G13."""
    model = script(project / "m.json", POUR, model=PRICES)
    done = server.cli("run", "go", "-m", model, "--max-cost-usd", "5", cwd=project)
    assert (done.returncode, done.stdout.strip()) == (6, "abcd" * 6)
    assert "limit of $5" in done.stderr


def test_a_session_gets_its_title_from_the_model_that_answers(
    server: Server, project: Path
) -> None:
    """CW 5.12: beside the run, and published without a run id."""
    workspace = server.workspace(project)
    title: Json = {"text": "<think>hm</think> Small\nanswers", "delay_ms": 200}
    model = script(project / "m.json", [{"text": "ok"}], title=title)
    session = server.session(workspace, "")
    with server.stream(workspace) as stream:
        run = server.prompt(workspace, session, "Tell me something small", model=model)["run_id"]
        before = stream.until_end_of(run)
        (named,) = stream.until(
            lambda f: f["type"] == "session" and "Small" in f["payload"]["payload"]["title"]
        )
    titles = [f["payload"]["payload"]["title"] for f in before if f["type"] == "session"]
    assert titles[-1] == "Tell me something small"
    assert named["payload"]["payload"]["title"] == "Small answers"
    assert server.get(f"/v1/workspaces/{workspace}/sessions/{session}")["title"] == "Small answers"
