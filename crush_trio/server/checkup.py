"""A checkup of the model that runs in a workspace would get: which it is, and whether it works."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import attrs
import trio

from crush_trio import limits
from crush_trio.config.expand import layered
from crush_trio.config.load import Config
from crush_trio.config.paths import EXTRA_CONFIG
from crush_trio.host.kit import Chosen
from crush_trio.models.checkup import Hints, ModelCheckup
from crush_trio.models.network.model import NetworkModel
from crush_trio.protocol.checks import Check
from crush_trio.protocol.errors import ConfigError, CrushError, Refused
from crush_trio.server.providers.access import ProviderAccess, usual_key
from crush_trio.server.services import Services

logger = logging.getLogger(__name__)

_VARIABLE: Final = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)")
_NO_MODEL: Final = (
    "Set a provider's key, as OPENAI_API_KEY or ANTHROPIC_API_KEY, configure a provider, or start "
    "a local model server such as Ollama."
)
_REFUSED: Final[dict[str, str]] = {
    "key_missing": "Set it where crush-trio runs, or put it into the configuration.",
    "unknown_model": "crush-trio models --all lists what is known.",
    "unknown_provider": "crush-trio models --all lists what is known.",
    "model_not_allowed": "Use the unix socket, or start the server with --allow-script-models.",
}


@attrs.define(eq=False)
class Checkup:
    """Checks one by one: call `next` until it answers ``None``.

    Args:
        name: The model that was asked for, if one was.
        env: What the client sent of its environment.
        local: Whether files may be played (contract 9).
    """

    services: Services
    workspace: Path
    name: str | None
    env: Mapping[str, str] = attrs.field(repr=False)
    local: bool
    offline: bool
    _model: ModelCheckup | None = attrs.field(default=None, init=False)
    _begun: bool = attrs.field(default=False, init=False)
    _ends_at: float = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._ends_at = trio.current_time() + limits.DOCTOR_TOTAL_S

    async def next(self) -> tuple[Check, ...] | None:
        """The next checks; ``None`` at the end. A step that fails by a mistake of ours is one."""
        try:
            with trio.move_on_at(self._ends_at):
                return await self._next()
        except Exception:
            logger.exception("a checkup failed")
            self._model, self._begun = None, True
            advice = "crush-trio logs shows what happened."
            return (Check("checkup", "fail", "the checkup itself failed", advice, "internal"),)
        self._model, self._begun, self._ends_at = None, True, float("inf")
        seen = f"it took longer than {limits.DOCTOR_TOTAL_S:g} s and was ended"
        advice = "Look at the check after the last one shown: it is what takes so long."
        return (Check("checkup", "fail", seen, advice, "provider_silent"),)

    async def _next(self) -> tuple[Check, ...] | None:
        if not self._begun:
            self._begun = True
            return (await self._choose(),)
        return None if self._model is None else await self._model.next()

    async def _choose(self) -> Check:
        read = self.services.settings.read
        try:
            config = await trio.to_thread.run_sync(read, self.workspace, abandon_on_cancel=True)
            chosen = await self.services.kit.model(
                self.name, self.workspace, local=self.local, env=self.env
            )
        except Refused as exc:
            return Check("model", "fail", str(exc), _REFUSED.get(exc.code, ""), exc.code)
        except ConfigError as exc:
            advice = "crush-trio config check says more about it."
            return Check("model", "fail", str(exc), advice, "config_invalid")
        except CrushError as exc:
            return Check("model", "fail", str(exc), code="internal")
        if isinstance(chosen.model, NetworkModel):
            hints = hints_of(chosen.model, self.env)
            self._model = ModelCheckup(chosen.model, hints, self.offline)
        return _named(chosen, self.name, config)


def _named(chosen: Chosen, asked: str | None, config: Config) -> Check:
    info = chosen.model.info
    name = f"{info.provider}/{info.model}"
    data = {"model": name, "is_language_model": info.is_language_model}
    why = _why(chosen, asked, config)
    other = [each for each in chosen.notices if each.startswith(EXTRA_CONFIG)]
    if other:
        return Check("model", "warn", f"{name} ({why})", other[0], data=data)
    if not info.is_language_model:
        seen = f"{name}, which is no language model ({why})"
        return Check("model", "warn", seen, _NO_MODEL, "no_language_model", data)
    if not isinstance(chosen.model, NetworkModel):
        seen = f"{name} ({why}); it plays a file, so there is nothing to ask"
        return Check("model", "ok", seen, data=data)
    unlisted = [each for each in chosen.notices if "is not in the list" in each]
    if unlisted:
        advice = "Check how it is written; configure its window and prices if it is right."
        return Check("model", "warn", f"{name} ({why}); {unlisted[0]}", advice, data=data)
    return Check("model", "ok", f"{name} ({why})", data=data)


def _why(chosen: Chosen, asked: str | None, config: Config) -> str:
    """What made this model be taken, in the order of contract 9."""
    if asked is not None:
        return f"asked for as {asked}"
    if config.model() is not None:
        return "models.large of the configuration"
    told = [each for each in chosen.notices if each.startswith("using ")]
    if told:
        return told[0].rpartition("(")[2].rstrip(")") if "(" in told[0] else told[0]
    if not chosen.model.info.is_language_model:
        return "no model is configured, no key is set, no local server was found"
    return "the first provider of the configuration that can be used"


def hints_of(model: NetworkModel, env: Mapping[str, str]) -> Hints:
    """What is known of a model by what was configured, catalogued and found."""
    target = model.target
    access = target.provider.access
    if not isinstance(access, ProviderAccess):
        return Hints(window_from="its server", is_ollama=target.provider.id == "ollama")
    known = access.known
    configured = any(
        entry.get("id") == target.info.model and entry.get("context_window")
        for entry in known.table.get("models", ())
    )
    return Hints(
        key_from=_key_from(access, env),
        needs_key=known.needs_key,
        window_from="the configuration" if configured else "the catalogue",
        is_ollama="ollama" in (known.id, known.facts.type),
    )


def _key_from(access: ProviderAccess, env: Mapping[str, str]) -> str:
    """Where a key comes from; never what it is."""
    known = access.known
    template = known.table.get("api_key", "")
    if template:
        where = f"providers.{known.id}.api_key"
        named = [_whose(name, env) for name in dict.fromkeys(_VARIABLE.findall(template))]
        return f"{where}: {', '.join(named)}" if named else where
    variable = usual_key(known, layered(env, os.environ))[0]
    return _whose(variable, env) if variable else ""


def _whose(variable: str, env: Mapping[str, str]) -> str:
    if env.get(variable):
        return f"{variable} of this command's environment"
    if os.environ.get(variable):
        return f"{variable} of the server's environment"
    return f"{variable}, which is not set"
