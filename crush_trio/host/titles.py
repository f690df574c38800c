"""A session's title, asked of a model beside its first run; nobody waits for it (CW 5.12)."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence

import attrs
import trio

from crush_trio import limits
from crush_trio.agent import sizes
from crush_trio.agent.budget import Budget, Progress, is_nothing
from crush_trio.agent.calls import encodable
from crush_trio.agent.ports import (
    Model,
    ModelError,
    ModelEvent,
    ModelInfo,
    ModelRequest,
    StreamReset,
    TextDelta,
    Titler,
)
from crush_trio.host import commits
from crush_trio.host.home import Home
from crush_trio.protocol.errors import StoreError
from crush_trio.protocol.ids import RunId, SessionId
from crush_trio.protocol.messages import Message, TextPart
from crush_trio.protocol.runs import Limits, Usage
from crush_trio.store.contract import Transaction

logger = logging.getLogger(__name__)

SYSTEM = (
    "Name the conversation that begins with the user's message. Answer with the name alone: one "
    "line of at most 50 characters, in the language of the message, without quotation marks. Do "
    "not answer the message itself."
)
_THOUGHT = re.compile(r"<(think|thinking)>.*?(</\1>|\Z)", re.DOTALL | re.IGNORECASE)
_THOUGHT_END = re.compile(r"\A.*</think(ing)?>", re.DOTALL | re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@attrs.define(eq=False)
class Titles:
    """Gives one session its title: a task of the workspace, bounded by `limits.TITLE_S`.

    It delays nothing: no run waits for it, a run that is cancelled takes it along, and `cancel`
    ends it when the session or the workspace goes.
    """

    home: Home
    session_id: SessionId
    _run_id: RunId = attrs.field(default=RunId(""), init=False)
    _scope: trio.CancelScope | None = attrs.field(default=None, init=False)

    def begin(self, model: Model, earlier: Iterable[Message], prompt: Message) -> None:
        """Start asking, if this is the session's first prompt with text and the model offers it."""
        if not isinstance(model, Titler) or not model.info.is_language_model:
            return
        if not prompt.text().strip() or any(m.role == "user" and m.text().strip() for m in earlier):
            return
        if self._scope is not None:
            return
        self._run_id = prompt.run_id or RunId("")
        self._scope = trio.CancelScope(deadline=trio.current_time() + limits.TITLE_S)
        self.home.nursery.start_soon(self._give, model, prompt, self._scope)

    def cancel(self, run_id: RunId | None = None) -> None:
        """Stop asking; with ``run_id`` only if it is that run's prompt. Never waits, idempotent."""
        if self._scope is not None and run_id in (None, self._run_id):
            self._scope.cancel()

    async def _give(self, model: Model, prompt: Message, scope: trio.CancelScope) -> None:
        try:
            with scope:
                titlers = _titlers(model)
                if not titlers:
                    return
                placeholder = commits.title_from(prompt.text())
                found = await self.home.store.session(self.session_id)
                if found is None or not _is_unnamed(found[1].title, placeholder):
                    return
                answer = await self._ask_each(titlers, prompt)
                await self._store(answer, placeholder)
        except ModelError as exc:
            logger.info("session %s keeps its title: %s", self.session_id, exc)
        except StoreError as exc:
            logger.warning("the title of session %s was not stored: %s", self.session_id, exc)
        except Exception:  # a provider's bug must not end the workspace
            logger.exception("session %s keeps its title", self.session_id)
        finally:
            self._scope = None

    async def _ask_each(self, titlers: Sequence[Model], prompt: Message) -> _Answer:
        """The first title there is, and what all that were asked have used.

        Raises:
            ModelError: The last of them failed, and nothing was used.
        """
        answer = _Answer()
        for number, titler in enumerate(titlers, 1):
            last = number == len(titlers)
            # The first may take half of the time, so that one that is silent costs no title.
            with trio.move_on_after(limits.TITLE_S if last else limits.TITLE_S / 2):
                try:
                    answer = answer.plus(await _ask(titler, self._request(prompt, titler.info)))
                except ModelError as exc:
                    if last and is_nothing(answer.usage):
                        raise
                    logger.info(
                        "session %s was not named by %s: %s",
                        self.session_id,
                        titler.info.model,
                        exc,
                    )
            if answer.title:
                break
        return answer

    def _request(self, prompt: Message, info: ModelInfo) -> ModelRequest:
        text = prompt.text()[: limits.TITLE_PROMPT_CHARS]
        return ModelRequest(
            system=SYSTEM,
            messages=(attrs.evolve(prompt, parts=(TextPart(text),)),),
            tools=(),
            session_id=self.session_id,
            run_id=self._run_id,
            step=1,
            workspace_path=self.home.path,
            # A model that thinks first would have used them up before it answers.
            max_output_tokens=None if info.can_reason else limits.TITLE_OUTPUT_TOKENS,
            title=True,
        )

    async def _store(self, answer: _Answer, placeholder: str) -> None:
        """Add to the session as it is by then: what others have changed meanwhile stays."""
        usage = answer.usage
        prompt = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens

        def write(tx: Transaction) -> None:
            session = tx.session(self.session_id)
            if session is None:
                return
            wanted = answer.title if _is_unnamed(session.title, placeholder) else ""
            changed = attrs.evolve(
                session,
                title=wanted or session.title,
                prompt_tokens=session.prompt_tokens + prompt,
                completion_tokens=session.completion_tokens + usage.output_tokens,
                cost=session.cost + answer.cost,
            )
            if changed != session:
                tx.put_session(changed)
                tx.emit("session", "updated", changed, session_id=self.session_id)

        await self.home.store.commit_nowait(self.home.id, write).wait()


@attrs.frozen
class _Answer:
    """A title, empty if none was found, and what asking for it has used; unknown cost is left out
    of a session's."""

    title: str = ""
    usage: Usage = Usage()
    cost: float = 0.0

    def plus(self, other: _Answer) -> _Answer:
        return _Answer(other.title, self.usage.plus(other.usage), self.cost + other.cost)


def _titlers(model: Model) -> tuple[Model, ...]:
    """Whom to ask, in order: what the model offers, and itself if that is another (CW 5.12)."""
    small = model.titler() if isinstance(model, Titler) else None
    if small is None:
        return ()
    same = (small.info.provider, small.info.model) == (model.info.provider, model.info.model)
    return (small,) if same else (small, model)


async def _ask(titler: Model, request: ModelRequest) -> _Answer:
    pieces: list[str] = []
    length = 0

    def emit(event: ModelEvent) -> None:
        nonlocal length
        if isinstance(event, StreamReset):
            pieces.clear()
            length = 0
        elif isinstance(event, TextDelta) and length < limits.TITLE_ANSWER_CHARS:
            pieces.append(event.text)
            length += len(event.text)

    end = await titler.stream(request, emit)
    budget = Budget(Limits(), titler.info)
    asked = sizes.of_text(request.system) + sizes.of_messages(request.messages)
    used = budget.meter(Progress(), asked).used(length, ended=True)
    usage = used if end.usage is None or is_nothing(end.usage) else end.usage
    price = budget.price(usage) if end.cost_usd is None else end.cost_usd
    return _Answer(title_of("".join(pieces)), usage, price or 0.0)


def title_of(answer: str) -> str:
    """A model's answer as a title: without thoughts, on one line, at most
    `limits.TITLE_MAX_CHARS` long; empty if nothing is left."""
    text = _THOUGHT_END.sub("", _THOUGHT.sub(" ", answer))
    words = _CONTROL.sub(" ", encodable(text)).split()
    return " ".join(words)[: limits.TITLE_MAX_CHARS].rstrip()


def _is_unnamed(title: str, placeholder: str) -> bool:
    return title == placeholder or title in commits.UNTITLED
