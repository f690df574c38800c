"""The checks of one model of a provider, one after another, each as far as the ones before went."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs
import trio

from crush_trio import limits
from crush_trio.agent.ports import Model, ModelError, ModelRequest
from crush_trio.http.connections import Connections
from crush_trio.models.checkup import asking, readings
from crush_trio.models.checkup.reaching import reach
from crush_trio.models.checkup.window import window
from crush_trio.models.masking import masked, secrets_among
from crush_trio.models.network.model import NetworkModel, resolve
from crush_trio.models.provider import Access
from crush_trio.protocol.checks import Check

Found = tuple[Check, ...]


@attrs.frozen
class Hints:
    """What whoever has chosen the model knows about it, and the model does not.

    Args:
        key_from: Which variable or setting its key is from; empty if it has none.
        needs_key: The provider answers nobody without one.
        window_from: Who says how large its window is.
        is_ollama: It runs on an Ollama server, which has a window of its own.
    """

    key_from: str = ""
    needs_key: bool = False
    window_from: str = "the catalogue"
    is_ollama: bool = False


@attrs.define(eq=False)
class ModelCheckup:
    """Checks a model step by step: call `next` until it answers ``None``.

    Args:
        offline: The provider is not contacted at all.
    """

    model: NetworkModel
    hints: Hints
    offline: bool = False
    _access: Access = attrs.field(init=False)
    _secrets: tuple[str, ...] = attrs.field(default=(), init=False)
    _left: list[Callable[[], Awaitable[Found]]] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        online = [] if self.offline else [self._connection, self._list, self._answer, self._tools]
        self._left = [self._key, *online, self._context, self._small]

    async def next(self) -> Found | None:
        """The next checks; ``None`` when there are no more. Cancelling it leaves nothing open.

        One step takes `limits.DOCTOR_ANSWER_S` and a little at most.
        """
        if not self._left:
            return None
        step = self._left.pop(0)
        found = await step()
        return tuple(self._harmless(each) for each in found)

    def _harmless(self, check: Check) -> Check:
        """Without our key, whoever wrote it there."""
        if not self._secrets:
            return check
        return attrs.evolve(
            check,
            seen=masked(check.seen, self._secrets),
            advice=masked(check.advice, self._secrets),
        )

    def _stop(self, *left: Callable[[], Awaitable[Found]]) -> None:
        self._left = list(left)

    @property
    def _connections(self) -> Connections:
        return self.model.connections

    # --- the steps ------------------------------------------------------------------------

    async def _key(self) -> Found:
        provider = self.model.target.provider
        try:
            self._access = await resolve(provider)
        except ModelError as exc:
            self._stop()
            advice = f"Correct providers.{provider.id} in the configuration."
            return (Check("key", "fail", exc.message, advice, exc.code),)
        sent = (self._access.api_key, *self._access.headers.values())
        self._secrets = secrets_among(sent)
        data = {"from": self.hints.key_from or None}
        if self._access.api_key:
            seen = f"from {self.hints.key_from}" if self.hints.key_from else "there is one"
            return (Check("key", "ok", seen, data=data),)
        if self.hints.needs_key and not self._access.headers:
            advice = f"Set providers.{provider.id}.api_key, or the variable that it names."
            return (Check("key", "fail", "there is none", advice, "key_missing", data),)
        return (Check("key", "ok", "none, and none is known to be needed", data=data),)

    async def _connection(self) -> Found:
        provider = self.model.target.provider
        found = await reach(self._access.base_url, self._connections, is_local=provider.is_local)
        if found.status == "fail":
            self._stop()
        return (found,)

    async def _list(self) -> Found:
        wanted = self.model.info.model
        try:
            ids = await self.model.list_models(within_s=limits.DOCTOR_CONNECT_S)
        except ModelError as exc:
            advice = "Nothing needs to be done if it answers: not every provider has such a list."
            return (Check("model_list", "warn", exc.message, advice, exc.code),)
        data = {"models": len(ids), "listed": wanted in ids}
        some = f"1 of the {len(ids)} models that it lists" if len(ids) > 1 else "the one it lists"
        if wanted in ids or f"{wanted}:latest" in ids:
            return (Check("model_list", "ok", f"{wanted} is {some}", data=data),)
        known = ", ".join(ids[: limits.MODEL_CANDIDATES]) or "no model"
        seen = f"{wanted} is none of the models that it lists: {known}"
        advice = "Name one of them, if it does not answer under this name."
        return (Check("model_list", "warn", seen, advice, data=data),)

    async def _answer(self) -> Found:
        wanted = asking.request(asking.COUNT, most_tokens=limits.DOCTOR_TOKENS)
        found = readings.answer(await self._ask(wanted))
        if found[0].status == "fail":
            self._stop(self._context, self._small)
        return found

    async def _tools(self) -> Found:
        wanted = asking.request(asking.CALL, asking.TOOL, most_tokens=limits.DOCTOR_TOOL_TOKENS)
        return (readings.tools(await self._ask(wanted)),)

    async def _ask(self, wanted: ModelRequest) -> asking.Heard:
        return await asking.ask(self.model.target, self._connections, self._access, wanted)

    async def _context(self) -> Found:
        found = await window(
            self.model.target,
            self._connections,
            self._access,
            source=self.hints.window_from,
            is_ollama=self.hints.is_ollama and not self.offline,
        )
        return (found,)

    async def _small(self) -> Found:
        await trio.lowlevel.checkpoint()
        small: Model | None = self.model.titler()
        if small is None or small.info == self.model.info:
            seen = "the same model gives titles"
            return (Check("small_model", "ok", seen, data={"model": None}),)
        name = f"{small.info.provider}/{small.info.model}"
        return (Check("small_model", "ok", f"{name} gives titles", data={"model": name}),)
