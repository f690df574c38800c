"""Real runs over Anthropic's Messages API: what a model thought and called goes back to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.e2e.kit import Server
from tests.e2e.model_server import Answer, model_server

Json = dict[str, Any]


def streamed(reason: str, *blocks: tuple[Json, Json]) -> Answer:
    """An answer of content blocks, each with its one piece."""
    usage = {"input_tokens": 7, "cache_read_input_tokens": 900, "cache_creation_input_tokens": 80}
    events: list[Json] = [{"type": "message_start", "message": {"usage": usage}}]
    for index, (block, delta) in enumerate(blocks):
        events += [
            {"type": "content_block_start", "index": index, "content_block": block},
            {"type": "content_block_delta", "index": index, "delta": delta},
            {"type": "content_block_stop", "index": index},
        ]
    ended = {"type": "message_delta", "delta": {"stop_reason": reason}}
    return 200, [*events, ended | {"usage": {"output_tokens": 30}}, {"type": "message_stop"}]


def says(text: str) -> tuple[Json, Json]:
    """A block of text."""
    return {"type": "text", "text": ""}, {"type": "text_delta", "text": text}


def call(name: str, **arguments: str) -> tuple[Json, Json]:
    """A call of ``view``, by the id ``name``."""
    block = {"type": "tool_use", "id": name, "name": "view", "input": {}}
    return block, {"type": "input_json_delta", "partial_json": json.dumps(arguments)}


def test_thoughts_and_both_results_go_back_and_what_was_cached_is_counted(
    server: Server, project: Path
) -> None:
    thought = {"type": "thinking", "thinking": "", "signature": "c2ln"}
    words = {"type": "thinking_delta", "thinking": "Both files."}
    with model_server() as models:
        models.answers = [
            streamed(
                "tool_use",
                (thought, words),
                says("I look."),
                call("toolu_1", file_path="README.md"),
                call("toolu_2", file_path="no-such-file"),
            ),
            streamed("end_turn", says("It counts marmots.")),
        ]
        den: Json = {"type": "anthropic", "base_url": models.url, "api_key": "sk-test"}
        den["models"] = [{"id": "claude-sonnet-4-5", "can_reason": True}]
        chosen = {"provider": "den", "model": "claude-sonnet-4-5", "think": True}
        path = server.home / ".config" / "crush-trio" / "config.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"providers": {"den": den}, "models": {"large": chosen}}))
        run = server.cli("run", "--json", "What is this?", cwd=project)
        assert run.returncode == 0, run.stdout + run.stderr
        first, second = models.prompts
    assert first.path == "/v1/messages"
    assert first.headers["x-api-key"] == "sk-test"
    assert first.body["thinking"]["type"] == "enabled"
    asked, spoken, answered = second.body["messages"]
    assert [asked["role"], spoken["role"], answered["role"]] == ["user", "assistant", "user"]
    kinds = [block["type"] for block in spoken["content"]]
    assert kinds == ["thinking", "text", "tool_use", "tool_use"]
    assert spoken["content"][0] == thought | {"thinking": "Both files."}
    good, bad = answered["content"]
    assert (good["tool_use_id"], bad["tool_use_id"]) == ("toolu_1", "toolu_2")
    assert "Counts marmots." in json.dumps(good["content"])
    assert bad["is_error"] is True
    result = json.loads(run.stdout.splitlines()[-1])
    assert result["text"] == "It counts marmots."
    used = server.record(result["run_id"])["usage"]
    assert used == {
        "input_tokens": 14,
        "output_tokens": 60,
        "cache_read_tokens": 1800,
        "cache_write_tokens": 160,
    }
