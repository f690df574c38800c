"""The network models of one server: chosen by name, configuration, keys, or what runs here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import trio

from crush_trio import limits
from crush_trio.agent.ports import Model, ModelError
from crush_trio.config.expand import layered
from crush_trio.config.load import Config
from crush_trio.host.kit import Chosen
from crush_trio.http.connections import Connections
from crush_trio.models.catalogue import FILE, Catalogue, load
from crush_trio.models.local import LocalServers
from crush_trio.models.network.model import NetworkModel, resolve
from crush_trio.models.provider import Target
from crush_trio.protocol.errors import ConfigError, Refused
from crush_trio.server.providers import choosing
from crush_trio.server.providers.access import Secrets, key_problem
from crush_trio.server.providers.choosing import Picked, Problem
from crush_trio.server.providers.known import Known, known_providers
from crush_trio.server.providers.local import with_local
from crush_trio.server.providers.naming import named, nearest
from crush_trio.server.providers.targets import target_of

if TYPE_CHECKING:
    from crush_trio.models.catalogue.refresh import Refresher

_Listed = tuple[float, tuple[str, ...] | None]


@attrs.define(eq=False)
class Models:
    """Chooses among the providers that a configuration, a client and the catalogue know.

    Args:
        data_dir: Where a refreshed catalogue lies.
        connections: What the models are asked over.
        local: The model servers of this machine.
    """

    data_dir: Path
    connections: Connections
    local: LocalServers = attrs.field(factory=lambda: LocalServers(os.environ))
    _catalogue: tuple[object, Catalogue] | None = attrs.field(default=None, init=False)
    _known: dict[int, tuple[Config, Catalogue, dict[str, Known]]] = attrs.field(
        factory=dict, init=False
    )
    _secrets: Secrets = attrs.field(factory=Secrets, init=False)
    _lists: dict[tuple[str, str, str], _Listed] = attrs.field(factory=dict, init=False)

    @cached_property
    def refresher(self) -> Refresher:
        """Renews the catalogue that is read here."""
        from crush_trio.models.catalogue.refresh import Refresher  # only who renews it needs it

        return Refresher(self.data_dir / FILE, self.connections)

    def secrets(self) -> tuple[str, ...]:
        """What was sent to providers as a secret until now, so that it can be masked."""
        return self._secrets.values()

    def known(self, config: Config) -> dict[str, Known]:
        """Every provider that ``config`` and the catalogue know; blocking when it is new."""
        catalogue = self._read_catalogue()
        entry = self._known.get(id(config))
        if entry is not None and entry[0] is config and entry[1] is catalogue:
            return entry[2]
        found = known_providers(config, catalogue)
        if len(self._known) >= limits.MODEL_CONFIGS_KEPT:
            self._known.clear()  # one step: several threads may be here
        self._known[id(config)] = (config, catalogue, found)
        return found

    async def choose(
        self, name: str | None, config: Config, env: Mapping[str, str], *, asks: bool = True
    ) -> Chosen | None:
        """The model called ``name``, or the one that applies anyway (contract 9).

        ``None`` if nothing was asked for, configured or found: then the built-in planner is left.

        Args:
            asks: Whether a provider may be asked for its models now, where nobody knows them;
                servers of this machine always are.

        Raises:
            Refused: ``unknown_model``, ``unknown_provider``, ``key_missing``.
            ConfigError: What is configured about it is wrong.
        """
        providers = await trio.to_thread.run_sync(self.known, config, abandon_on_cancel=True)
        problem = partial(key_problem, environ=layered(env, os.environ))
        if name is not None:
            providers = await self._looked_for(name, providers, env)
        try:
            if name is not None:
                picked: Picked | None = await trio.to_thread.run_sync(
                    _named, name, config, providers, problem
                )
            else:
                picked = self._unnamed(config, providers, env)
        except Refused as exc:
            raise _with_inert(exc, config) from None
        if picked is None:
            return await self._local(providers, env)
        connections = self._connections(config)
        picked, notices = await self._complete(picked, env, connections, asks=asks)
        if picked.why:
            notices = (f"using {picked.name} ({picked.why})", *notices)
        small = choosing.small_for(picked, config, providers, problem)
        return Chosen(self._model(picked, small, env, connections), notices)

    async def everywhere(self, config: Config, env: Mapping[str, str]) -> dict[str, Known]:
        """Every provider that is known, with the servers of this machine."""
        providers = await trio.to_thread.run_sync(self.known, config, abandon_on_cancel=True)
        return with_local(providers, await self.local.find(env))

    async def _looked_for(
        self, name: str, providers: dict[str, Known], env: Mapping[str, str]
    ) -> dict[str, Known]:
        """With the servers of this machine, if ``name`` may mean one of them or its model."""
        head = providers.get(name.partition("/")[0])
        if head is not None and not head.facts.is_local:
            return providers
        return with_local(providers, await self.local.find(env))

    async def _local(self, providers: dict[str, Known], env: Mapping[str, str]) -> Chosen | None:
        """The model of a server of this machine, where nothing was asked for or configured."""
        found = await self.local.find(env)
        for server in found.servers:
            known = with_local(providers, found).get(server.provider.id)
            if server.model is not None and known is not None and known.access is not None:
                picked = Picked(known, server.model.model)
                return Chosen(self._model(picked, None, {}, self.connections), (server.line,))
        return None

    def _unnamed(
        self, config: Config, providers: dict[str, Known], env: Mapping[str, str]
    ) -> Picked | None:
        problem = partial(key_problem, environ=layered(env, os.environ))
        picked = choosing.from_configuration(config, providers, problem)
        if picked is None:
            picked = choosing.from_environment(providers.values(), (env, os.environ))
        if picked is None:
            choosing.check_nothing_meant(providers.values(), problem)
        return picked

    async def _complete(
        self, picked: Picked, env: Mapping[str, str], connections: Connections, *, asks: bool
    ) -> tuple[Picked, tuple[str, ...]]:
        """With a model that the provider has, as far as anybody knows, and what to say about it."""
        provider = picked.provider
        if picked.model in provider.models:
            return picked, ()
        theirs: tuple[str, ...] | None = None
        if provider.access is not None:  # it was asked just now
            theirs = tuple(provider.models)
        elif asks and (provider.discovers or not picked.model):
            theirs = await self._ask_for_models(provider, env, connections)
        if not picked.model:
            if not theirs:
                raise Refused(
                    "unknown_model",
                    f"The provider {provider.id!r} names no model: write {provider.id}/MODEL, "
                    f"or list some under providers.{provider.id}.models.",
                )
            return attrs.evolve(picked, model=theirs[0]), ()
        if theirs is None:
            # In a thread: a list of thousands takes most of a second to compare.
            known = await trio.to_thread.run_sync(nearest, picked.model, list(provider.models))
            return picked, (
                f"{picked.name} is not in the list of models: its window and price are not "
                f"known{known or '.'}",
            )
        if picked.model not in theirs:
            some = ", ".join(theirs[: limits.MODEL_CANDIDATES])
            near = await trio.to_thread.run_sync(nearest, picked.model, list(theirs))
            end = near or f"; it has {some or 'none'}."
            raise Refused("unknown_model", f"{provider.id} has no model {picked.model!r}{end}")
        return picked, ()

    async def _ask_for_models(
        self, provider: Known, env: Mapping[str, str], connections: Connections
    ) -> tuple[str, ...] | None:
        """What a provider says it has, asked once in a while; ``None`` if it does not say."""
        target = target_of(provider, "", {}, env, self._secrets)
        try:
            access = await resolve(target.provider)
        except ModelError as exc:
            raise ConfigError(exc.message) from None
        asked = attrs.evolve(target.provider, access=lambda: access)  # its command ran just now
        key = (provider.id, access.base_url, access.api_key)
        known = self._lists.get(key)
        if known is not None and trio.current_time() < known[0]:
            return known[1]
        model = NetworkModel(attrs.evolve(target, provider=asked), connections)
        ids: tuple[str, ...] | None = None
        try:
            ids = await model.list_models(within_s=limits.MODEL_LIST_S)
        except ModelError:
            ids = None  # what the model itself says when it is asked, is clearer
        kept_s = limits.MODEL_LIST_KEPT_S if ids else limits.MODEL_LIST_RETRY_S
        if len(self._lists) >= limits.MODEL_CONFIGS_KEPT:
            self._lists.clear()
        self._lists[key] = (trio.current_time() + kept_s, ids)
        return ids

    def _model(
        self,
        picked: Picked,
        small: Picked | None,
        env: Mapping[str, str],
        connections: Connections,
    ) -> Model:
        target = self._target(picked, env)
        if small is None:
            return NetworkModel(target, connections)
        titles = self._target(small, env)
        return NetworkModel(target, connections, titler=lambda: NetworkModel(titles, connections))

    def _connections(self, config: Config) -> Connections:
        """Those that believe what ``options.ca_file`` adds, too."""
        named = config.options.get("ca_file")
        return self.connections.trusting(Path(named)) if named else self.connections

    def _target(self, picked: Picked, env: Mapping[str, str]) -> Target:
        return target_of(picked.provider, picked.model, picked.selected, env, self._secrets)

    def _read_catalogue(self) -> Catalogue:
        """The catalogue as it is on the disk now; read again when its copy has changed."""
        path = self.data_dir / FILE
        try:
            status = path.stat()
            now: object = (status.st_mtime_ns, status.st_size, status.st_ino)
        except OSError:
            now = None
        if self._catalogue is None or self._catalogue[0] != now:
            self._catalogue = (now, load(path))
        return self._catalogue[1]


def _with_inert(refused: Refused, config: Config) -> Refused:
    """The same, with the files that may define what is missing, but are not trusted."""
    if refused.code not in ("unknown_provider", "unknown_model"):
        return refused
    return Refused(refused.code, " ".join((refused.message, *config.inert_providers)))


def _named(name: str, config: Config, providers: dict[str, Known], problem: Problem) -> Picked:
    """What ``name`` means, asked as the configuration says if it has chosen the same."""
    found = named(name, providers, problem)
    provider = found.provider
    if provider.facts.is_local and not provider.is_configured and provider.access is None:
        raise Refused(
            "unknown_provider",
            f"{provider.facts.name} does not answer at {provider.facts.base_url}: start it, or "
            f"set providers.{provider.id}.base_url.",
        )
    model = found.model or provider.default()
    for slot in ("large", "small"):
        selected = choosing.selection(config, slot)
        if (selected.get("provider"), selected.get("model")) == (provider.id, model):
            return Picked(provider, model, selected, found.why)
    return Picked(provider, model, why=found.why)
