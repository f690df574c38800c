"""A prompt carried through its turn: what the turn starts from, and what its tools may use."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial

import attrs
import trio

from crush_trio.agent import compaction, prompts, transcript
from crush_trio.agent.budget import Progress, is_nothing
from crush_trio.agent.compaction import Fullness
from crush_trio.agent.ports import (
    Decision,
    HookPlace,
    Model,
    NoAnswer,
    PermissionAsk,
    ProcessHost,
    Tool,
    ToolContext,
)
from crush_trio.agent.turn import Turn, TurnEnd, TurnInput
from crush_trio.host import commits
from crush_trio.host.asks.permissions import AskRules, ask_person
from crush_trio.host.asks.questions import ask_questions
from crush_trio.host.kit import WorkspaceSetup
from crush_trio.host.runs.desk import Desk, now_s
from crush_trio.host.runs.run_agents import RunAgents
from crush_trio.protocol.messages import Message
from crush_trio.protocol.questions import Question, QuestionResponse
from crush_trio.protocol.runs import Limits, Outcome, Usage
from crush_trio.protocol.sessions import Session, Todo
from crush_trio.store.contract import Transaction


@attrs.define(eq=False)
class PromptRun:
    """Takes the turn of one prompt; implements `host.runs.desk.Work`."""

    desk: Desk
    turn: Turn | None = attrs.field(default=None, init=False)
    _agents: RunAgents | None = attrs.field(default=None, init=False)
    unallowed: set[str] = attrs.field(factory=set, init=False)
    """Calls that were started and did nothing: they only waited for a person."""

    @property
    def progress(self) -> Progress | None:
        """See `host.runs.desk.Work`."""
        return None if self.turn is None else self.turn.progress

    @property
    def failure(self) -> Exception | None:
        """See `host.runs.desk.Work`."""
        return None if self.turn is None else self.turn.failure

    def started_calls(self, *, cancelled: bool) -> frozenset[str]:
        """The calls that may have done something; to a cancel, those that only asked count too."""
        started = self.turn.progress.started_calls if self.turn is not None else frozenset()
        return started if cancelled else started - self.unallowed

    async def take(self, wanted: Limits) -> TurnEnd:
        """See `host.runs.desk.Work`."""
        self.turn = await self._prepare(wanted)
        if self.desk.open_run.sub_agent is None:  # a sub-agent has none of its own
            self._agents = RunAgents(self.desk, self.turn)
        return await self.turn.take()

    def settle(self, tx: Transaction, outcome: Outcome) -> None:
        """Set the session's token counts to the last step's and add the run's cost (CW 5.11)."""
        progress = self.progress or Progress()
        session = tx.session(self.desk.journal.session_id)
        usage, cost = progress.last_usage, progress.spent
        if session is not None and (cost or not is_nothing(usage)):
            account(tx, session, usage, cost)

    async def _prepare(self, wanted: Limits) -> Turn:
        """Read what the turn starts from; blocking reads go through one thread each."""
        desk, journal, store = self.desk, self.desk.journal, self.desk.home.store
        record = desk.row.record
        user = transcript.user_message(
            record.session_id, record.id, commits.prompt_parts(desk.row.request), now_s()
        )
        placed = journal.place(user)
        journal.stage(lambda tx: commits.begin_run(tx, record.id, placed))
        leaves_out = desk.moved_behind()  # looked at before the messages are
        # It only reads: a directory that does not answer is left behind when the run is cancelled.
        model = await desk.model()
        setup, model, system = await trio.to_thread.run_sync(
            self._read_setup, model, abandon_on_cancel=True
        )
        stored = await store.messages(record.session_id)
        # A session without messages has no read marks and no summary.
        reads = await store.reads(record.session_id) if stored else {}
        session = (await store.session(record.session_id) if stored else None) or ()
        shown, fullness = self._history(stored, session[1] if session else None, setup, model)
        sub = desk.open_run.sub_agent
        if desk.open_run.run.mark is None and sub is None:  # a sub-agent's session has its title
            desk.on_prompt(model, stored, user)
        processes = desk.open_processes()
        if record.kind == "prompt":  # a sub-agent's tools have none (CW 7.6)
            place = HookPlace(desk.home.path, record.session_id, record.id, setup.environment())
            desk.hooks = setup.hooks(processes, place)
        return Turn(
            TurnInput(
                session_id=record.session_id,
                run_id=record.id,
                workspace_path=desk.home.path,
                system=system,
                history=(*shown, user),
                limits=wanted,
                model=model,
                tools=tuple(tool for tool in setup.tools if self._offers(tool)),
                context=lambda call_id: self._context(call_id, setup, reads, processes),
                now_s=now_s,
                fullness=fullness,
                leaves_out=leaves_out,
                covers=partial(desk.covered_behind, compaction.places(stored)),
                taken=transcript.call_ids(stored),
                hooks=desk.hooks,
                sub_agent=sub is not None,
            ),
            journal,
        )

    def _history(
        self,
        stored: tuple[Message, ...],
        session: Session | None,
        setup: WorkspaceSetup,
        model: Model,
    ) -> tuple[tuple[Message, ...], Fullness]:
        """What the model is to see of the session so far, and how much of its window that fills."""
        compacts = setup.auto_summarize and self.desk.row.request.compact is not False
        window = model.info.context_window if compacts else 0
        if session is None:
            return stored, Fullness(window, allowed=compacts)
        shown = compaction.history(stored, session.summary_message_id)
        return shown, Fullness(
            window, session.prompt_tokens, session.completion_tokens, allowed=compacts
        )

    def _read_setup(self, model: Model) -> tuple[WorkspaceSetup, Model, str]:
        kit, path = self.desk.home.kit, self.desk.home.path
        setup = kit.setup(path)
        record, sub = self.desk.row.request.record, self.desk.open_run.sub_agent
        if record is not None:
            model = kit.recording(model, record)
        names = setup.context_paths if sub is None or sub.task.project_files else ()
        system = prompts.system_prompt(
            path,
            is_git=(path / ".git").exists(),
            today=datetime.now(UTC).date().isoformat(),
            files=prompts.read_context_files(path, names),
            sub_agent=sub.task.instructions if sub is not None else None,
        )
        self.desk.read_sandbox(path)
        return setup, model, system

    # --- tools ----------------------------------------------------------------------------

    def _context(
        self,
        call_id: str,
        setup: WorkspaceSetup,
        reads: Mapping[str, int],
        processes: ProcessHost,
    ) -> ToolContext:
        journal = self.desk.journal
        return ToolContext(
            workspace_id=journal.workspace_id,
            workspace_path=self.desk.home.path,
            session_id=journal.session_id,
            run_id=journal.run_id,
            ask=lambda ask: self._ask(call_id, ask, setup),
            forbidden=lambda ask: self._forbidden(ask, setup),
            output=self.desk.output(call_id).show,
            last_read=lambda path: journal.last_reads.get(path) or reads.get(path),
            processes=processes,
            env=setup.environment(),
            config=setup.tool_config,
            outputs=self.desk.outputs_at(),
            jobs=self.desk.jobs,
            agents=self._agents,
            todos=self._todos,
            sandbox=self.desk.jobs.sandbox,
            questions=(
                partial(self._ask_questions, call_id, _rules(setup)) if self._asks() else None
            ),
        )

    async def _todos(self) -> tuple[Todo, ...]:
        """The session's to-do list; what a call has changed is durable before the next begins."""
        found = await self.desk.home.store.session(self.desk.journal.session_id)
        return found[1].todos if found is not None else ()

    def _mode(self) -> str:
        return self.desk.row.request.permission_mode or self.desk.home.default_mode()

    def _offers(self, tool: Tool) -> bool:
        spec, sub = tool.spec, self.desk.open_run.sub_agent
        if sub is not None:
            return spec.name in sub.task.tools and not spec.needs_person
        return (self._asks() or not spec.needs_person) and not spec.for_sub_agents

    def _asks(self) -> bool:
        return self._mode() == "ask"

    async def _ask(self, call_id: str, ask: PermissionAsk, setup: WorkspaceSetup) -> Decision:
        home, request, sub = self.desk.home, self.desk.row.request, self.desk.open_run.sub_agent
        allow = (*setup.allow_tools, *request.allow_tools)
        deny = (*setup.deny_tools, *request.deny_tools)
        mode = "allow" if ask.allowed_by_hook else self._mode()
        decision = home.kit.decide(ask, mode, allow, deny, home.path)
        if decision is None:
            self.unallowed.add(call_id)
            record = self.desk.row.record
            run, rules = self.desk.open_run.run, _rules(setup)
            ask = attrs.evolve(ask, sandboxed=self.desk.jobs.sandbox is not None)
            decision = await ask_person(home.waiting, run, record, call_id, ask, rules)
            self.unallowed.discard(call_id)
        if decision.stop_turn and sub is not None:
            sub.stopped = True
        return decision

    def _forbidden(self, ask: PermissionAsk, setup: WorkspaceSetup) -> Decision:
        """What the rules that deny say to a call that needs no permission."""
        home = self.desk.home
        deny = (*setup.deny_tools, *self.desk.row.request.deny_tools)
        return home.kit.decide(ask, "allow", (), deny, home.path) or Decision(True)

    async def _ask_questions(
        self,
        call_id: str,
        rules: AskRules,
        questions: tuple[Question, ...],
        confirm: tuple[str, str],
    ) -> tuple[QuestionResponse, ...] | NoAnswer:
        self.unallowed.add(call_id)
        waiting, run, record = self.desk.home.waiting, self.desk.open_run.run, self.desk.row.record
        return await ask_questions(waiting, run, record, call_id, questions, confirm, rules)


def _rules(setup: WorkspaceSetup) -> AskRules:
    return AskRules(setup.ask_deadline_s, setup.deny_stops)


def account(tx: Transaction, session: Session, usage: Usage, cost: float) -> None:
    """Set the session's token counts to the last step's and add the run's cost (CW 5.11).

    What was written to the provider's cache was part of the prompt, too.
    """
    prompt = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
    commits.touch_session(
        tx,
        session.id,
        prompt_tokens=prompt or session.prompt_tokens,
        completion_tokens=usage.output_tokens or session.completion_tokens,
        cost=session.cost + cost,
    )
