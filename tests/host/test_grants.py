"""What an answer allows: what was shown and no more (T21, T24, T25), and what a denial does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from crush_trio.agent.ports import PermissionAsk, ToolContext, ToolResult
from crush_trio.host.asks.granted import forget_grants, granted
from crush_trio.host.asks.grants import covers, grant_id, grant_of
from crush_trio.host.asks.permissions import answer_permission
from crush_trio.protocol import codec
from crush_trio.protocol.digests import request_digest
from crush_trio.protocol.errors import Refused
from crush_trio.protocol.events import PermissionRequest
from crush_trio.protocol.ids import SessionId
from crush_trio.protocol.requests import PermissionGrant
from crush_trio.protocol.runs import Outcome
from crush_trio.store.contract import AskRow
from tests.host.asker import ANA, Asker, grant
from tests.host.fakes import FakeTool, ask_for
from tests.host.world import World


@pytest.fixture
async def asker(world: World) -> Asker:
    """A world whose tools ask."""
    return Asker(world)


def bash(command: str, path: str = "/w", **params: Any) -> PermissionAsk:
    """As the tool asks."""
    shown = {"command": command, "run_in_background": False, **params}
    return PermissionAsk("bash", "execute", f"Execute command: {command}", path, shown, command)


def written(tool: str, path: str, action: str = "write") -> PermissionAsk:
    """As the tools that write and read files ask."""
    folder = path.rpartition("/")[0]
    return PermissionAsk(tool, action, f"Write {path}", folder, {"file_path": path}, path)


def fetched(url: str, tool: str = "fetch", path: str = "/w") -> PermissionAsk:
    """As the tools that fetch ask."""
    return PermissionAsk(tool, "fetch", f"Fetch {url}", path, {"url": url}, url)


def other(**params: Any) -> PermissionAsk:
    """As a tool of an MCP server asks."""
    return PermissionAsk("mcp_db_query", "execute", "Query", "/w", params, "mcp_db_query")


MAKE = bash("make test")
ALIKE = [
    (MAKE, bash("make test", description="Run the tests")),
    (written("edit", "/w/src/a.py"), written("edit", "/w/src/b.py")),
    (fetched("https://example.org/a"), fetched("https://EXAMPLE.org/b?c")),
    (other(a=1, b=[2]), other(b=[2], a=1)),
]
DIFFERENT = [
    (MAKE, attrs.evolve(MAKE, sandboxed=True)),
    (MAKE, bash("make test; rm -rf .")),
    (MAKE, bash("make test ")),
    (MAKE, bash("make test", "/w/sub")),
    (MAKE, bash("make test", run_in_background=True)),
    (MAKE, bash("make test", auto_background_after=5)),
    (written("edit", "/w/src/a.py"), written("edit", "/w/src/sub/a.py")),
    (written("edit", "/w/src/a.py"), written("edit", "/w/a.py")),
    (written("edit", "/w/a.py"), written("write", "/w/a.py")),
    (written("view", "/x/a", "read"), written("view", "/x/a")),
    (fetched("https://example.org/"), fetched("http://example.org/")),
    (fetched("https://example.org/"), fetched("https://example.org:8443/")),
    (fetched("https://example.org/"), fetched("https://example.org.evil.net/")),
    (fetched("https://example.org@evil.net/"), fetched("https://example.org/")),
    (fetched("not a url"), fetched("neither")),
    (fetched("https://a.b/", "download", "/w"), fetched("https://a.b/", "download", "/w/x")),
    (other(sql="select 1"), other(sql="drop table x")),
    (other(file_path="/w/a"), other(file_path="/w/b")),
    (other(url="https://a.b/c"), other(url="https://a.b/d")),
]


def test_a_grant_covers_as_little_as_may_have_been_meant() -> None:
    """T24."""
    for first, second in ALIKE:
        assert grant_of(first) == grant_of(second), first.description
    for first, second in DIFFERENT:
        assert grant_of(first) != grant_of(second), (first, second)
    names = {grant_id(grant_of(each)) for pair in DIFFERENT for each in pair}
    assert len(names) == len({grant_of(each) for pair in DIFFERENT for each in pair})


@given(st.text(max_size=12), st.text(max_size=12))
def test_two_commands_are_alike_only_if_they_are_the_same_text(one: str, two: str) -> None:
    assert (grant_of(bash(one)) == grant_of(bash(two))) == (one == two)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (MAKE, "exactly this command in /w"),
        (bash("x", run_in_background=True), "exactly this command in /w, in the background"),
        (attrs.evolve(MAKE, sandboxed=True), "exactly this command in /w, in a sandbox"),
        (written("edit", "/w/src/a.py"), "edit (write) of every file directly in /w/src"),
        (PermissionAsk("grep", "search", "", "/x", {"pattern": "a"}, "/x"), "grep (search) in /x"),
        (fetched("https://a.b:81/c"), "fetch (fetch) from https://a.b:81"),
        (
            fetched("https://a.b/c", "download"),
            "download (fetch) from https://a.b into the directory /w",
        ),
        (other(a=1), "exactly this call of mcp_db_query (execute)"),
    ],
)
def test_what_a_grant_covers_is_said_in_words(ask: PermissionAsk, said: str) -> None:
    assert covers(grant_of(ask)) == said


async def test_a_session_is_not_asked_about_the_same_command_and_is_about_others(
    world: World, asker: Asker
) -> None:
    """T24, R68: and is asked again once it is taken back."""
    said = iter(["make", "make", "make clean", "make"])

    async def run(context: ToolContext) -> ToolResult:
        decision = await context.permission(bash(next(said)))
        return ToolResult("did it", denied=not decision.allowed)

    world.kit.tools = (FakeTool("bash", run),)
    world.kit.fake.acts["do"] = ask_for("bash")
    _, row = await asker.ask("do")
    assert (await asker.answer(row, "allow_session")).resolved
    await world.all_ended()
    assert (await asker.ended(world.submit("do"))).outcome is Outcome.COMPLETED
    run_3, row = await asker.ask("do")
    assert (await asker.answer(row)).resolved
    await asker.ended(run_3)
    store, w, s = world.store, world.workspace.id, world.session.id
    [shown] = (await granted(store, w, s)).grants
    assert (shown.scope, shown.granted_by) == ("command:make", ANA)
    with pytest.raises(Refused, match="no grant"):
        await forget_grants(store, w, s, "0", ANA)
    with pytest.raises(Refused, match="no session"):
        await granted(store, w, SessionId("x"))
    assert (await forget_grants(store, w, s, shown.id, ANA)).grants == ()
    run_4, row = await asker.ask("do")
    assert (await asker.answer(row, "deny")).resolved
    assert (await asker.ended(run_4)).outcome is Outcome.DENIED


async def test_the_digest_is_that_of_the_request_on_the_wire(world: World, asker: Asker) -> None:
    """T21: a client can make it from what it shows."""
    run, row = await asker.ask()
    assert isinstance(row.request, PermissionRequest)
    on_the_wire = codec.parse(codec.encode(row.request))
    assert request_digest(on_the_wire) == row.request.digest
    assert len(row.request.digest) == 64
    await asker.answer(row, "deny")
    await asker.ended(run)


async def test_forged_and_replayed_answers_allow_nothing(world: World, asker: Asker) -> None:
    """T21: every field of what was shown, one at a time, and yesterday's answer."""
    first, old = await asker.ask()
    assert (await asker.answer(old)).resolved
    await asker.ended(first)
    asker.done.clear()
    run, row = await asker.ask()
    assert isinstance(row.request, PermissionRequest)
    assert isinstance(old.request, PermissionRequest)
    named = grant(row, "allow_session")
    for field in attrs.fields(PermissionRequest):
        if field.name == "id":
            continue
        changed: Any = {"file_path": "y"} if field.name == "params" else "else"
        forged = attrs.evolve(named.permission, **{field.name: changed})
        with pytest.raises(Refused, match=f"permission.{field.name}"):
            await answer_permission(asker.waiting, attrs.evolve(named, permission=forged), ANA)
    for digest in (old.request.digest, "", row.request.digest.upper()):
        with pytest.raises(Refused, match="`digest`"):
            await answer_permission(asker.waiting, attrs.evolve(named, digest=digest), ANA)
    replayed = await answer_permission(asker.waiting, grant(old, "allow_session"), ANA)
    assert (replayed.resolved, replayed.ending) == (False, "allowed")
    swapped = attrs.evolve(grant(old, "allow").permission, id=row.id)
    with pytest.raises(Refused, match="permission"):
        await answer_permission(asker.waiting, PermissionGrant(swapped, "allow"), ANA)
    assert [each.id for each in await asker.pending()] == [row.id]
    assert (asker.done, await world.store.grants(world.session.id)) == ([], frozenset())
    assert (await asker.answer(row)).resolved
    await asker.ended(run)


@pytest.mark.parametrize("moved", ["path", "target"])
async def test_a_place_that_was_exchanged_while_somebody_decided_is_not_touched(
    world: World, asker: Asker, tmp_path: Path, moved: str
) -> None:
    """T25: what was shown must not mean another place when it is used."""
    place = tmp_path / "place"
    place.mkdir()
    touched: list[str] = []

    async def run(context: ToolContext) -> ToolResult:
        paths = {"path": "/w", "target": "/w/x", moved: str(place)}
        shown = {"file_path": "x"}
        ask = PermissionAsk("touch", "write", "", paths["path"], shown, paths["target"])
        decision = await context.permission(ask)
        if decision.allowed:
            touched.append(paths[moved])
        return ToolResult(decision.reason, denied=not decision.allowed)

    world.kit.tools = (FakeTool("touch", run),)
    run_1, row = await asker.ask()
    place.rename(tmp_path / "old")
    place.symlink_to("/etc")
    assert (await asker.answer(row)).resolved
    assert (await asker.ended(run_1)).outcome is Outcome.DENIED
    assert touched == []
    assert "was changed while the permission was waited for" in (await asker.results())[0]
    run_2, row = await asker.ask()
    assert (await asker.answer(row)).resolved
    assert (await asker.ended(run_2)).outcome is Outcome.COMPLETED
    assert touched == [str(place)], "asked again, it is what is there now that is shown"


@pytest.mark.parametrize("way", ["a person", "nobody"])
async def test_a_denial_need_not_stop_the_turn(
    clock: MockClock, world: World, asker: Asker, way: str
) -> None:
    """T26, R70: as configured; the model hears why and goes on, the outcome stays `denied`."""
    world.kit.deny_stops = False
    world.kit.ask_deadline_s = 45
    run, row = await asker.ask("both")
    began = trio.current_time()
    if way == "a person":
        told = attrs.evolve(grant(row, "deny"), message="not today")
        assert (await answer_permission(asker.waiting, told, ANA)).resolved
    with trio.fail_after(60):
        [second] = await pending_but(asker, row)
    assert (await asker.answer(second)).resolved
    record = await asker.ended(run)
    assert (record.outcome, record.denied, record.steps) == (Outcome.DENIED, 1, 2)
    assert record.text == "done"
    assert asker.done == [f"{world.session.id} wipe"]
    refused = (await asker.results())[0]
    why = "User denied permission: not today" if way == "a person" else "nobody answered within 45"
    assert why in refused
    assert "go on without it" in refused
    assert trio.current_time() - began == pytest.approx(0 if way == "a person" else 45, abs=1)


async def pending_but(asker: Asker, row: AskRow) -> list[AskRow]:
    """The requests that wait, once this one does not."""
    while True:
        rows = [each for each in await asker.world.store.pending_asks() if each.id != row.id]
        if rows:
            return rows
        await trio.sleep(1)


async def test_what_is_forbidden_stays_so_whatever_was_granted(world: World, asker: Asker) -> None:
    """I29, T24: by the run's own rules or by the configuration's."""
    run, row = await asker.ask()
    assert (await asker.answer(row, "allow_session")).resolved
    await asker.ended(run)
    assert len(asker.done) == 1
    record = await asker.ended(world.submit("one", deny_tools=("touch",)))
    assert (record.outcome, len(asker.done)) == (Outcome.DENIED, 1)
    world.kit.deny_tools = ("touch",)
    record = await asker.ended(world.submit("one", permission_mode="allow"))
    assert (record.outcome, len(asker.done)) == (Outcome.DENIED, 1)
    world.kit.deny_tools = ()
    assert (await asker.ended(world.submit("one"))).outcome is Outcome.COMPLETED
