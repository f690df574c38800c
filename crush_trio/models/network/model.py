"""A model of a provider behind a network: one request with all its attempts."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs
import trio

from crush_trio import limits
from crush_trio.agent.ports import (
    Emit,
    Model,
    ModelError,
    ModelInfo,
    ModelRequest,
    StepEnd,
    StreamReset,
)
from crush_trio.http.connections import Connections
from crush_trio.models.call_ids import session_mark
from crush_trio.models.dialects import dialect
from crush_trio.models.dialects.port import HttpCall
from crush_trio.models.failures import Failure, Kind
from crush_trio.models.network.attempt import TimeLimits, attempt
from crush_trio.models.network.get import get
from crush_trio.models.network.hiding import hidden
from crush_trio.models.network.retry import Retries
from crush_trio.models.provider import Access, Provider, Target
from crush_trio.protocol.errors import ConfigError

if TYPE_CHECKING:
    from crush_trio.protocol.ids import SessionId


class NetworkModel:
    """Asks a provider, again where that helps; `agent.ports.Model`, `Titler`, `HasSmaller`.

    One instance serves any number of runs. Between requests it keeps nothing but what the
    provider's access expanded to: a ``$(command)`` runs once, and again when the key is refused.

    Args:
        target: What it asks.
        connections: What it is asked over.
        titler: What gives sessions their titles; without it, this model.
        times: How long the provider may take, if not as long as usual.
        random: Where the jitter of waits comes from.
    """

    def __init__(
        self,
        target: Target,
        connections: Connections,
        *,
        titler: Callable[[], Model | None] | None = None,
        times: TimeLimits | None = None,
        random: random.Random | None = None,
    ) -> None:
        self.target = target
        self.connections = connections
        self._titler = titler
        self._times = times or TimeLimits.of(target.provider)
        self._random = random
        self._access: Access | None = None

    @property
    def info(self) -> ModelInfo:
        """What this model is, as configuration and catalogue say."""
        return self.target.info

    def titler(self) -> Model | None:
        """What to ask for a title."""
        return self if self._titler is None else self._titler()

    def smaller(self) -> Model | None:
        """The small model that goes with it, if it is another."""
        return None if self._titler is None else self._titler()

    async def stream(self, request: ModelRequest, emit: Emit) -> StepEnd:
        """See `agent.ports.Model`. Before each further attempt `StreamReset` is emitted.

        Raises:
            ModelError: It failed for good; the message says how often it was tried.
        """
        _check_tools(request, self.target)
        await self.connections.ready()
        retries = Retries(trio.current_time(), self._random or random.Random())
        is_local, refreshed = self.target.provider.is_local, False
        access = self._access or await resolve(self.target.provider)
        while True:
            if not is_local:  # who listens here is looked at each time
                self._access = access
            try:
                return await self._attempt(request, access, emit)
            except Failure as exc:
                failure = exc
            if failure.kind is Kind.AUTH and not refreshed:
                refreshed, before = True, access
                access = await resolve(self.target.provider)
                if access != before:  # the key has changed since: a fresh one may do (CW 5.6)
                    emit(StreamReset(1, 1, 0.0, failure.message))
                    continue
            again = retries.after(failure, trio.current_time())
            if isinstance(again, Failure):
                raise again.error()
            emit(StreamReset(again.number, again.at_most, again.delay_s, failure.message))
            await trio.sleep(again.delay_s)
            if is_local:
                access = await resolve(self.target.provider)

    async def list_models(self, *, within_s: float = limits.MODEL_GET_S) -> tuple[str, ...]:
        """The ids of the models that the provider has now.

        Raises:
            ModelError: It does not say.
        """
        target = self.target
        speaks = dialect(target.provider.dialect)
        access = await resolve(target.provider)
        try:
            call = speaks.models_call(access)
            answer = await get(
                self.connections,
                call.url,
                headers=call.headers,
                is_local=target.provider.is_local,
                within_s=within_s,
            )
            with hidden(call.headers, target.provider):
                if not 200 <= answer.status < 300:
                    raise speaks.failure(answer.status, answer.headers, answer.body, target)
                return speaks.models(answer.body)
        except Failure as exc:
            raise exc.error() from None

    async def _attempt(self, request: ModelRequest, access: Access, emit: Emit) -> StepEnd:
        target = self.target
        speaks = dialect(target.provider.dialect)
        call = _marked(speaks.call(request, target, access), request.session_id)
        return await attempt(
            self.connections.client(is_local=target.provider.is_local),
            speaks,
            call,
            lambda note: speaks.reader(request, target, note),
            target,
            emit,
            self._times,
        )


def _check_tools(request: ModelRequest, target: Target) -> None:
    """Ask no model for tools that is known to have none; a server of this machine says so itself.

    Raises:
        ModelError: ``tools_unsupported``.
    """
    provider, model = target.provider, target.info.model
    if request.tools and target.info.supports_tools is False and not provider.is_local:
        raise Failure(
            Kind.NO_TOOLS,
            f"{provider.id}/{model} cannot call tools, by the list of models: choose one that "
            f"can, or set supports_tools of {model} in the configuration.",
        ).error()


async def resolve(provider: Provider) -> Access:
    """A provider's access, expanded in a thread, because that may run a command.

    Raises:
        ModelError: ``config_invalid``: it cannot be expanded, or not in time.
    """
    try:
        with trio.fail_after(limits.MODEL_ACCESS_S):
            return await trio.to_thread.run_sync(provider.access, abandon_on_cancel=True)
    except ConfigError as exc:
        raise _not_configured(str(exc)) from None
    except trio.TooSlowError:
        raise _not_configured(
            f"The key and address of {provider.name} could not be expanded "
            f"within {limits.MODEL_ACCESS_S:g} s."
        ) from None


def _not_configured(message: str) -> ModelError:
    return ModelError("config_invalid", message, title="Wrong configuration")


def _marked(call: HttpCall, session_id: SessionId) -> HttpCall:
    """The call with its `session_mark`; what the configuration says wins."""
    digest = session_mark(session_id)
    marks = {"x-session-id": digest, "x-session-affinity": digest, "accept": "text/event-stream"}
    given = {key.lower() for key in call.headers}
    marks = {key: value for key, value in marks.items() if key not in given}
    return attrs.evolve(call, headers={**marks, **call.headers})
