"""Model servers on loopback: found all at once, believed only if they are ours, chosen by rule."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest
import trio

from crush_trio import limits
from crush_trio.models.local import Found, LocalServers, find
from crush_trio.models.local import finding as finding_module
from crush_trio.models.local.answers import LocalModel, ollama_details
from crush_trio.models.local.owners import Listener
from crush_trio.protocol.errors import ConfigError
from tests.models.local_kit import (
    HANGS,
    LLAMACPP,
    LMSTUDIO_V0,
    LMSTUDIO_V1,
    OLLAMA,
    VLLM,
    everybody,
    serving,
)

IN_FACT_S = limits.LOCAL_LIST_S
NOWHERE = {"ollama": 1, "lmstudio": 1, "llamacpp": 1, "vllm": 1}


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is busy with other tests is no slow model server."""
    monkeypatch.setattr(limits, "LOCAL_LIST_S", 20.0)
    monkeypatch.setattr(limits, "LOCAL_DETAILS_S", 20.0)


async def _found(kind: str, answers: Mapping[str, Any], **environ: str) -> Found:
    """What is found where one server runs, whose socket is really looked up."""
    async with serving(answers) as server:
        return await find(environ, ports={**NOWHERE, kind: server.port})


async def test_ollama_says_what_its_models_can_do_and_the_running_one_is_preferred() -> None:
    found = await _found("ollama", OLLAMA)
    (server,) = found.servers
    assert [
        (model.model, model.context_window, model.supports_tools, model.supports_attachments)
        for model in server.models
    ] == [
        ("qwen3:8b", 8192, True, False),
        ("llama3.2:latest", 131072, True, False),
        ("gemma3:4b", 131072, False, True),
    ]
    chosen = server.model
    assert chosen is not None
    assert (chosen.provider, chosen.model, chosen.can_reason) == ("ollama", "qwen3:8b", True)
    assert server.line == f"using ollama/qwen3:8b on {server.address} (no model is configured)"
    assert found.best is server
    assert found.notes == ()


async def test_a_local_model_costs_nothing_which_is_not_the_same_as_unknown() -> None:
    (server,) = (await _found("vllm", VLLM)).servers
    (model,) = server.models
    assert (model.cost_per_1m_in, model.cost_per_1m_out) == (0.0, 0.0)
    assert (model.cost_per_1m_in_cached, model.cost_per_1m_out_cached) == (0.0, 0.0)
    assert (model.context_window, model.supports_tools) == (40960, None)


async def test_a_local_server_is_spoken_to_as_openai_chat_without_a_key() -> None:
    async with serving(VLLM) as running:
        found = await find({}, ports={**NOWHERE, "vllm": running.port})
        provider = found.servers[0].provider
        access = provider.access()
    assert (provider.dialect, provider.is_local, provider.name) == ("openai-chat", True, "vLLM")
    assert (access.base_url, access.api_key) == (f"http://127.0.0.1:{running.port}/v1", "")


async def test_the_older_interface_of_lm_studio_is_understood() -> None:
    (server,) = (await _found("lmstudio", LMSTUDIO_V0)).servers
    assert [
        (model.model, model.context_window, model.supports_tools, model.supports_attachments)
        for model in server.models
    ] == [
        ("granite-3.0-2b-instruct", 4096, True, False),
        ("qwen2-vl-7b-instruct", 32768, None, True),
    ]


async def test_the_newer_interface_of_lm_studio_is_understood() -> None:
    (server,) = (await _found("lmstudio", LMSTUDIO_V1)).servers
    assert [
        (model.model, model.context_window, model.supports_tools, model.supports_attachments)
        for model in server.models
    ] == [("qwen/qwen3.5-9b", 65536, True, False), ("google/gemma-3-4b", 131072, False, True)]


async def test_lm_studio_with_nothing_but_a_list_of_names_is_understood() -> None:
    names = {"data": [{"id": "text-embedding-nomic"}, {"id": "some-model"}]}
    (server,) = (await _found("lmstudio", {"/v1/models": names})).servers
    assert [(model.model, model.context_window) for model in server.models] == [("some-model", 0)]


async def test_llama_cpp_says_its_real_window_rather_than_the_one_it_was_trained_for() -> None:
    (server,) = (await _found("llamacpp", LLAMACPP)).servers
    (model,) = server.models
    assert (model.context_window, model.supports_tools, model.supports_attachments) == (
        65536,
        True,
        True,
    )


async def test_llama_cpp_that_routes_to_several_prefers_the_loaded_one() -> None:
    data = [
        {"id": "cold", "owned_by": "llamacpp", "status": {"value": "unloaded"}},
        {"id": "warm", "owned_by": "llamacpp", "status": {"value": "loaded"}},
    ]
    answers = {"/v1/models": {"data": data}, "/props": {"role": "router"}}
    (server,) = (await _found("llamacpp", answers)).servers
    assert [model.model for model in server.models] == ["warm", "cold"]


@pytest.mark.parametrize("kind", ["llamacpp", "vllm"])
async def test_something_else_on_a_common_port_is_not_taken_for_a_model_server(kind: str) -> None:
    others = {"/v1/models": {"data": [{"id": "x", "owned_by": "somebody"}]}, "/props": {}}
    assert (await _found(kind, others)).servers == ()


@pytest.mark.parametrize(
    "answer",
    [b"SSH-2.0-OpenSSH_9.6\r\n", b"", b"HTTP/1.1 200 OK\r\n\r\n{", 500, 401, 302, [], None, "x"],
    ids=repr,
)
@pytest.mark.parametrize("kind", ["ollama", "lmstudio", "llamacpp", "vllm"])
async def test_garbage_is_passed_over(kind: str, answer: Any) -> None:
    paths = [path for known in finding_module.KINDS for path in known.paths]
    assert (await _found(kind, dict.fromkeys(paths, answer))).servers == ()


@pytest.mark.parametrize("status", [201, 302, 401, 404, 500])
async def test_an_answer_of_another_status_is_passed_over_whatever_it_says(status: int) -> None:
    """A server that wants a key, which we have not got, is none that can be used."""
    answers = {path: (status, answer) for path, answer in VLLM.items()}
    assert (await _found("vllm", answers)).servers == ()


async def test_an_answer_that_is_too_long_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    long = OLLAMA | {"/api/tags": {"models": [{"name": "x" * 2000}]}}
    assert len((await _found("ollama", long)).servers) == 1
    monkeypatch.setattr(limits, "LOCAL_ANSWER_BYTES", 1000)
    assert (await _found("ollama", long)).servers == ()


@pytest.mark.parametrize(
    ("parameters", "told", "running", "expected"),
    [
        ("", "", 0, 40960),
        ("num_ctx 16384", "", 0, 16384),
        ("num_ctx 16384", "", 4096, 4096),
        ("num_ctx 16384", "8192", 0, 16384),
        ("stop num_ctx", "8192", 0, 8192),
        ("", "1000000", 0, 40960),
        ("", "many", 0, 40960),
    ],
)
def test_the_window_of_ollama_is_the_one_it_uses_as_far_as_it_says(
    parameters: str, told: str, running: int, expected: int
) -> None:
    shown = {"parameters": parameters, "model_info": {"qwen3.context_length": 40960}}
    model = LocalModel("qwen3:8b", running)
    found = ollama_details(model, shown, {"OLLAMA_CONTEXT_LENGTH": told})
    assert found.window == expected


# --- time -----------------------------------------------------------------------------------


async def test_all_servers_are_asked_at_once_for_everything() -> None:
    """None answers before each path of each of them has been asked."""
    waiting, everyone = 0, trio.Event()

    async def before() -> None:
        nonlocal waiting
        waiting += 1
        if waiting == len(LLAMACPP) + len(VLLM):
            everyone.set()
        await everyone.wait()

    async with serving(LLAMACPP, before=before) as llama, serving(VLLM, before=before) as vllm:
        ports = {**NOWHERE, "llamacpp": llama.port, "vllm": vllm.port}
        found = await find({}, ports=ports)
    assert [server.provider.id for server in found.servers] == ["llamacpp", "vllm"]


async def test_a_server_that_hangs_costs_its_limit_and_takes_no_other_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "LOCAL_LIST_S", IN_FACT_S)
    async with serving(dict.fromkeys(OLLAMA, HANGS)) as silent, serving(VLLM) as vllm:
        ports = {**NOWHERE, "ollama": silent.port, "vllm": vllm.port}
        began = trio.current_time()
        with trio.fail_after(5):
            found = await find({}, ports=ports)
        assert trio.current_time() - began >= IN_FACT_S
    assert [server.provider.id for server in found.servers] == ["vllm"]
    assert {path for path, _, _ in silent.asked} == {"/api/tags", "/api/ps"}


async def test_a_list_counts_also_if_the_details_do_not_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "LOCAL_LIST_S", IN_FACT_S)
    monkeypatch.setattr(limits, "LOCAL_DETAILS_S", IN_FACT_S)
    with trio.fail_after(5):
        found = await _found("ollama", OLLAMA | {"/api/show": HANGS, "/api/ps": HANGS})
    (server,) = found.servers
    assert [(model.model, model.supports_tools) for model in server.models] == [
        ("qwen3:8b", None),
        ("gemma3:4b", None),
        ("llama3.2:latest", None),
        ("mxbai:latest", None),
    ]


async def test_what_was_found_is_remembered_for_a_while_and_looked_for_once() -> None:
    async with serving(VLLM) as running:
        ports = {**NOWHERE, "vllm": running.port}
        local = LocalServers({}, ports=ports, sockets=lambda: everybody(None, running.port))
        assert local.known.servers == ()
        results: list[Found] = []

        async def look() -> None:
            results.append(await local.find())

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(look)
        assert running.connections == 1
        assert all(found is local.known for found in results)
        assert local.known.best is not None


async def test_where_ollama_is_for_a_client_counts_before_where_it_is_for_the_server() -> None:
    async with serving(OLLAMA) as running:
        local = LocalServers(
            {"OLLAMA_HOST": "127.0.0.1:1"}, sockets=lambda: everybody(None, running.port)
        )
        assert (await local.find()).server("ollama") is None
        there = {"OLLAMA_HOST": f"127.0.0.1:{running.port}"}
        assert (await local.find(there)).server("ollama") is not None
        assert (await local.find()).server("ollama") is None


async def test_after_a_while_it_is_looked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LOCAL_FOUND_S", 0.0)
    async with serving(VLLM) as running:
        ports = {**NOWHERE, "vllm": running.port}
        local = LocalServers({}, ports=ports, sockets=lambda: everybody(None, running.port))
        first = await local.find()
        assert await local.find() is not first
        assert running.connections == 2


# --- whose it is ----------------------------------------------------------------------------


async def test_a_server_of_another_user_is_not_spoken_to_and_said_so() -> None:
    async with serving(OLLAMA) as running:
        found = await find(
            {},
            ports={**NOWHERE, "ollama": running.port},
            sockets=lambda: everybody(os.getuid() + 1, running.port),
        )
        assert running.connections == 0
    assert found.servers == ()
    assert found.notes == (
        f"What listens on 127.0.0.1:{running.port} belongs to another user "
        f"(uid {os.getuid() + 1}) and is not asked for models.",
    )


async def test_nothing_is_asked_where_nobody_listens() -> None:
    async with serving(OLLAMA) as running:
        found = await find({}, ports={**NOWHERE, "ollama": running.port}, sockets=lambda: ())
        assert running.connections == 0
    assert (found.servers, found.notes, found.best) == ((), (), None)


async def test_a_server_that_has_become_another_users_gets_no_prompt() -> None:
    uid = os.getuid()
    async with serving(VLLM) as running:
        found = await find(
            {},
            ports={**NOWHERE, "vllm": running.port},
            sockets=lambda: everybody(uid, running.port),
        )
        access = found.servers[0].provider.access
        uid += 1
        with pytest.raises(ConfigError, match="belongs to another user"):
            access()


async def test_a_server_on_ipv6_alone_is_found() -> None:
    async with serving(VLLM, host="::1") as running:
        found = await find({}, ports={**NOWHERE, "vllm": running.port})
        assert running.asked[0][1] == f"[::1]:{running.port}"
    server = found.servers[0]
    assert server.address == f"[::1]:{running.port}"
    assert server.provider.access().base_url == f"http://[::1]:{running.port}/v1"


# --- which one ------------------------------------------------------------------------------


async def test_the_first_kind_with_a_usable_model_is_taken() -> None:
    shown = {"capabilities": ["completion"], "model_info": {"a.context_length": 4096}}
    no_tools = {
        "/api/tags": {"models": [{"name": "tiny:1b"}]},
        "/api/show": lambda body: shown,
    }
    async with serving(no_tools) as ollama, serving(LLAMACPP) as llama, serving(VLLM) as vllm:
        ports = {**NOWHERE, "ollama": ollama.port, "llamacpp": llama.port, "vllm": vllm.port}
        found = await find({}, ports=ports)
    assert [server.provider.id for server in found.servers] == ["ollama", "llamacpp", "vllm"]
    assert found.best is found.server("llamacpp")
    assert found.servers[0].model is None
    assert found.notes == (f"Ollama on 127.0.0.1:{ollama.port} has no model with tools.",)


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("", 11434),
        ("127.0.0.1:4711", 4711),
        ("http://localhost:4711/", 4711),
        ("0.0.0.0", 11434),
        (":4711", 4711),
        ("[::]:4711", 4711),
        ("::1", 11434),
        ("http://127.0.0.1", 80),
        ("https://127.0.0.1:4711", None),
        ("gpu.example:11434", None),
        ("10.1.2.3", None),
        ("127.0.0.1:4711:1", None),
    ],
)
async def test_ollama_host_may_name_another_port_of_this_machine(
    named: str, expected: int | None
) -> None:
    asked = Listener("127.0.0.1", 4711, os.getuid() + 1)
    at = {port: Listener("127.0.0.1", port, os.getuid() + 1) for port in (80, 4711, 11434)}
    found = await find(
        {"OLLAMA_HOST": named},
        ports={"lmstudio": 1, "llamacpp": 1, "vllm": 1},
        sockets=lambda: (asked, *at.values()),
    )
    ports = [int(note.partition("127.0.0.1:")[2].partition(" ")[0]) for note in found.notes]
    assert ports == ([] if expected is None else [expected])


def test_no_module_of_the_network_layer_is_loaded_to_look() -> None:
    """Nobody who has no local server pays for looking; httpx2 alone costs 60 ms."""
    code = "import sys, crush_trio.models.local; print('httpx2' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "False\n"
