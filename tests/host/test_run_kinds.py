"""Commands and summaries beside prompts in one queue: order, steering, cancels, recovery."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from crush_trio import limits
from crush_trio.agent.ports import ShellResult, ToolResult
from crush_trio.agent.transcript import is_valid
from crush_trio.host.editing import edit
from crush_trio.protocol.errors import Refused
from crush_trio.protocol.ids import RunId, WorkspaceId
from crush_trio.protocol.messages import ShellCommandPart
from crush_trio.protocol.runs import Limits, Outcome, RunError, RunRecord, RunState
from crush_trio.store.contract import StoredEvent
from crush_trio.store.memory import MemoryStore
from tests.host import fakes
from tests.host.fakes import Gate
from tests.host.world import ME, World, change, fork, next_start, payload, quiet

KINDS = {"prompt": "hang", "shell": "stay", "summarize": ""}


async def part(world: World) -> ShellCommandPart:
    """The first command of the session."""
    found = [p for m in await world.messages() for p in m.parts if isinstance(p, ShellCommandPart)]
    return found[0]


def outcomes(records: Sequence[RunRecord]) -> list[str]:
    """How they ended."""
    return [str(record.outcome) for record in records]


async def test_all_kinds_run_in_the_order_of_acceptance(clock: MockClock, world: World) -> None:
    """G1, G5: one at a time, whatever its kind; each has its own ending."""
    first = world.submit("hello")
    runs = [
        first,
        world.submit("echo x", kind="shell"),
        world.submit("", kind="summarize"),
        world.submit("again"),
        world.submit("echo y", kind="shell"),
    ]
    records = await world.ended(*runs)
    assert outcomes(records) == ["completed"] * 5
    began = [(r.started_at_ms, r.accept_seq) for r in records]
    assert began == sorted(began)
    ends = [e.run_id for e in await world.events() if e.kind == "run_complete"]
    assert ends == [run.id for run in runs]
    assert [r.kind for r in records] == ["prompt", "shell", "summarize", "prompt", "shell"]
    assert (await part(world)).exit_code == 3
    assert world.kit.fake.requests[-1].messages[0].text() == "summary of 3"
    assert len(world.kit.fake.requests[-1].messages) == 2, "the summary and the prompt"


async def test_a_model_reads_commands_without_what_is_for_a_terminal(
    clock: MockClock, world: World
) -> None:
    """CW 3.5: the stored part keeps the escape sequences."""

    async def colourful(on_output: object) -> ShellResult:
        return ShellResult(0, "\x1b[31mred\x1b[0m \x1b]8;;x\x07link\x1b]8;;\x07\r\n", "")

    world.kit.shells["ls"] = colourful
    await world.ended(world.submit("ls --color", kind="shell"), world.submit("hello"))
    assert "\x1b[31m" in (await part(world)).output
    seen = world.kit.fake.requests[0].messages[0]
    assert seen.role == "user"
    assert "ls --color" in seen.text()
    assert "\nred link\n" in seen.text()
    assert "exit code 0" in seen.text()
    assert not any(isinstance(p, ShellCommandPart) for p in seen.parts)


@pytest.mark.parametrize("kind", ["shell", "summarize"])
async def test_a_steer_prompt_behind_another_kind_waits_for_its_own_turn(
    clock: MockClock, world: World, kind: str
) -> None:
    """Contract 3, if_busy: only a prompt's turn takes prompts in, and the receipt says so."""
    world.kit.fake.acts["SUMMARY"] = fakes.hang
    await world.ended(world.submit("hello"))
    other = world.submit(KINDS[kind], kind=kind)
    await trio.sleep(1)
    prompt = world.submit("steer me", "steer")
    receipt = (await prompt.accepted.wait()).value.receipt
    assert (receipt.disposition, receipt.position) == ("queued", 1)
    world.session.cancel(ME, other.id)
    records = await world.ended(other, prompt)
    assert outcomes(records) == ["cancelled", "completed"]
    assert records[1].steered_into is None


async def test_a_waiting_command_is_not_folded_and_does_not_keep_prompts_from_it(
    clock: MockClock, world: World
) -> None:
    """G5: a prompt behind it is folded into the turn that runs, the command keeps its place."""
    gate = Gate()
    reached = trio.Event()

    async def wait(context: object) -> ToolResult:
        reached.set()
        await gate.go.wait()
        return ToolResult("seen")

    world.kit.tools = (fakes.FakeTool("wait", wait),)
    world.kit.fake.acts["work"] = fakes.ask_for("wait")
    runs = [world.submit("work")]
    await reached.wait()
    runs += [world.submit("echo", kind="shell"), world.submit("steer", "steer")]
    await quiet()
    gate.go.set()
    records = await world.ended(*runs)
    assert outcomes(records) == ["completed", "completed", "steered"]


# --- cancels ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["shell", "summarize"])
@pytest.mark.parametrize("when", ["accepted", "queued", "begun", "running", "settled"])
async def test_a_cancel_ends_each_kind_in_each_window(
    clock: MockClock, world: World, kind: str, when: str
) -> None:
    """G4, R52, R65: a command keeps its text, a summary leaves nothing; the queue goes on."""
    world.kit.fake.acts["SUMMARY"] = fakes.hang
    await world.ended(world.submit("hello"))
    known = await world.messages()
    before = [world.submit("hang")] if when == "queued" else []
    world.kit.fake.acts["hang"] = fakes.silent
    if when == "settled":
        del world.kit.fake.acts["SUMMARY"]
    run = world.submit("echo" if when == "settled" else KINDS[kind], kind=kind)
    behind = world.submit("after")
    if when in ("queued", "running"):
        await trio.sleep(1.5)
    elif when == "begun":
        await trio.lowlevel.checkpoint()
    elif when == "settled":
        await run.ended.wait()
    receipt = (await world.session.cancel(ME, run.id).wait()).value
    await quiet()
    if when == "settled":
        assert receipt.runs == ()
        return
    assert [covered.run_id for covered in receipt.runs] == [run.id]
    (record,) = await world.ended(run)
    assert (record.outcome, record.cancelled_by) == (Outcome.CANCELLED, ME)
    for open_run in before:
        world.session.cancel(ME, open_run.id)
    await world.ended(behind, *before)
    new = [m for m in await world.messages() if m.run_id == run.id]
    session = (await world.store.session(world.session.id) or (None, None))[1]
    assert session is not None
    assert session.summary_message_id == ""
    if kind == "summarize":
        assert new == []
        assert (record.message_id, record.text) == (None, "")
    else:
        assert [type(p).__name__ for p in new[0].parts] == ["ShellCommandPart", "FinishPart"]
        code = next(p for p in new[0].parts if isinstance(p, ShellCommandPart))
        assert code.exit_code == 130
        assert code.output == ("so far\n" if when == "running" else "")
        assert (record.message_id, record.text) == (new[0].id, code.output)
    assert known == (await world.messages())[: len(known)]


async def test_a_cancel_while_a_summary_is_whole_but_not_settled_undoes_it(
    clock: MockClock, world: World
) -> None:
    """G4, I18: a marked run ends cancelled; the pointer moves with the ending or not at all."""
    await world.ended(world.submit("hello"))
    run = world.submit("", kind="summarize")
    await quiet()
    async with world.session.handoff:  # no outcome is fixed while somebody else holds it
        await trio.sleep(5)
        live = world.session.live_message()
        assert live is not None
        assert live.finish() is not None, "it is whole"
        world.session.cancel(ME)
    (record,) = await world.ended(run)
    assert (record.outcome, record.message_id) == (Outcome.CANCELLED, None)
    assert [change(e) for e in await world.events() if e.kind == "message"][-1] == "deleted"
    assert len(await world.messages()) == 2
    found = await world.store.session(world.session.id)
    assert found is not None
    assert found[1].summary_message_id == ""
    assert found[1].cost == pytest.approx(20e-6), "the prompt's alone"
    assert record.cost_usd == pytest.approx(140e-6), "it was spent all the same"


async def test_interrupt_and_reject_go_for_commands_too(clock: MockClock, world: World) -> None:
    """Contract 3, if_busy."""
    prompt = world.submit("hello")
    await world.ended(prompt)
    stays = world.submit("stay", kind="shell")
    await quiet()
    with pytest.raises(Refused) as refused:
        world.submit("echo", "reject", kind="shell")
    assert refused.value.code == "session_busy"
    new = world.submit("echo", "interrupt", kind="shell")
    records = await world.ended(stays, new)
    assert outcomes(records) == ["cancelled", "completed"]
    assert records[0].cancelled_by is not None
    assert records[0].cancelled_by.reason == "interrupt"


async def test_limits_end_a_command(
    clock: MockClock, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Contract 3, limits: its own, and the server's for commands without one."""
    own = world.submit("stay", kind="shell", limits=Limits(timeout_s=2))
    (record,) = await world.ended(own)
    assert record.error is not None
    assert (record.outcome, record.error.code) == (Outcome.LIMITED, "timeout")

    async def timed_out(on_output: object) -> ShellResult:
        return ShellResult(None, "", "", timed_out=True)

    world.kit.shells["slow"] = timed_out
    (record,) = await world.ended(world.submit("slow", kind="shell"))
    assert record.error is not None
    assert f"{limits.SHELL_TIMEOUT_S:g}" in record.error.message


async def test_a_command_that_cannot_be_confined_any_more_says_so(
    clock: MockClock, world: World
) -> None:
    async def refused(on_output: object) -> ShellResult:
        raise Refused("sandbox_unavailable", "No sandbox can be made here.")

    world.kit.shells["ls"] = refused
    (record,) = await world.ended(world.submit("ls", kind="shell"))
    assert record.error == RunError("sandbox_unavailable", "No sandbox can be made here.")


async def test_a_command_can_be_edited_and_a_summary_only_moved(
    clock: MockClock, world: World
) -> None:
    """G2: as a waiting prompt."""
    world.kit.fake.acts["hang"] = fakes.hang
    first = world.submit("hang")
    command, summary = world.submit("stay", kind="shell"), world.submit("", kind="summarize")
    await quiet()
    await edit(world.session, command.id, "echo new", None).wait()
    with pytest.raises(Refused):
        edit(world.session, summary.id, "shorter", None)
    await edit(world.session, summary.id, None, 0).wait()
    world.session.cancel(ME, first.id)
    await world.ended(first, command, summary)
    assert (await part(world)).command == "echo new"
    starts = [e.run_id for e in await world.events() if e.kind == "run_complete"]
    assert starts == [first.id, summary.id, command.id]


# --- recovery -----------------------------------------------------------------------------


async def test_a_kill_after_any_commit_of_any_kind_is_recovered_from(
    clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G1, G2, G7, I18: no pointer to a half summary, no command twice, each with one ending."""
    world = World(tmp_path)
    images: list[MemoryStore] = []

    def publish(workspace_id: WorkspaceId, events: Sequence[StoredEvent]) -> None:
        images.append(fork(world.store, world))
        world.journal.publish(workspace_id, events)

    world.store = MemoryStore(publish=publish)
    world.kit.fake.acts |= {"hang": fakes.hang}
    async with world.opened():
        await world.start()
        images.clear()
        runs = [
            world.submit("hello"),
            world.submit("echo", kind="shell"),
            world.submit("", kind="summarize"),
            world.submit("stay", kind="shell"),
            world.submit("steer", "steer"),
        ]
        await trio.sleep(4)
        world.session.cancel(ME, RunId("r4"))
        await world.ended(*runs)
        world.kit.fake.acts["SUMMARY"] = fakes.hang
        runs = [world.submit("", kind="summarize"), world.submit("echo", kind="shell")]
        await trio.sleep(2)
        world.session.cancel(ME)
        await world.ended(*runs)
        await world.check()
    assert len(images) >= 15
    pointed = 0
    monkeypatch.setattr(fakes, "stay", fakes.echo)  # what goes on after a start ends by itself
    for image in images:
        async with next_start(world, image) as after:
            known = await after.all_runs()
            await after.all_ended()
            for record in await after.all_runs():
                assert record.state is RunState.FINISHED
                assert is_valid(await after.store.messages(record.session_id))
            if known:
                session = (await after.store.session(known[0].session_id) or (None, None))[1]
                assert session is not None
                if session.summary_message_id:
                    pointed += 1
                    stored = await after.store.messages(session.id)
                    (summary,) = [m for m in stored if m.id == session.summary_message_id]
                    assert summary.text().startswith("summary of ")
            for request in after.kit.fake.requests:
                assert is_valid(request.messages)
    assert pointed > 5
    deleted = [e for e in await world.events() if e.kind == "message" and change(e) == "deleted"]
    assert [payload(e)["is_summary_message"] for e in deleted] == [True]
