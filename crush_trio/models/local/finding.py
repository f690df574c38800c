"""Looking for model servers on loopback, all at once, and choosing a model (contract 9)."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

import attrs
import trio

from crush_trio import limits
from crush_trio.models.local import answers
from crush_trio.models.local.answers import LocalModel
from crush_trio.models.local.asking import ask
from crush_trio.models.local.owners import Listener, Place, listeners, place_of
from crush_trio.models.provider import Access, Provider
from crush_trio.protocol.errors import ConfigError
from crush_trio.protocol.models import ModelInfo

Sockets: TypeAlias = Callable[[], Iterable[Listener]]


@attrs.frozen
class Kind:
    """A kind of server: where it usually listens, what is asked, and who reads the answers."""

    id: str
    name: str
    port: int
    paths: tuple[str, ...]
    read: Callable[[Mapping[str, Any], Mapping[str, str]], tuple[LocalModel, ...]]


KINDS: Final = (
    Kind("ollama", "Ollama", 11434, ("/api/tags", "/api/ps"), answers.ollama),
    Kind(
        "lmstudio",
        "LM Studio",
        1234,
        ("/api/v1/models", "/api/v0/models", "/v1/models"),
        answers.lmstudio,
    ),
    Kind("llamacpp", "llama.cpp", 8080, ("/v1/models", "/props"), answers.llamacpp),
    Kind("vllm", "vLLM", 8000, ("/v1/models",), answers.vllm),
)
"""In the order in which one is preferred to the next."""


@attrs.frozen(eq=False)
class LocalServer:
    """A model server of this machine that belongs to us or root.

    Args:
        provider: How to speak to it; its address is checked again before each request.
        models: What can be talked to, the preferred ones first.
        address: Host and port, for people.
    """

    provider: Provider
    models: tuple[ModelInfo, ...]
    address: str

    @property
    def model(self) -> ModelInfo | None:
        """The model to use if none was asked for: the first that is not known to lack tools."""
        return next((each for each in self.models if each.supports_tools is not False), None)

    @property
    def line(self) -> str:
        """What to say when `model` is used although nobody asked for it."""
        name = "" if self.model is None else self.model.model
        return f"using {self.provider.id}/{name} on {self.address} (no model is configured)"


@attrs.frozen(eq=False)
class Found:
    """The servers that answered, in the order of `KINDS`; sentences on what is passed over."""

    servers: tuple[LocalServer, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def best(self) -> LocalServer | None:
        """The first server that has a model to use."""
        return next((server for server in self.servers if server.model is not None), None)

    def server(self, provider: str) -> LocalServer | None:
        """The server with this provider id."""
        return next((each for each in self.servers if each.provider.id == provider), None)


async def find(
    environ: Mapping[str, str],
    *,
    ports: Mapping[str, int] | None = None,
    sockets: Sockets = listeners,
) -> Found:
    """Look for all kinds of servers at once; takes `LOCAL_LIST_S` + `LOCAL_DETAILS_S` at most.

    Nothing is sent to a port before it is known whose it is.

    Args:
        environ: ``OLLAMA_HOST`` may name another port of this machine.
        ports: Other ports, by the id of a kind.
        sockets: Who listens on this machine; blocking.
    """
    seen = tuple(await trio.to_thread.run_sync(sockets))
    found: dict[str, LocalServer] = {}
    notes: dict[str, str] = {}

    async def look(kind: Kind, place: Place) -> None:
        models = await _models(kind, place, environ)
        if models:
            found[kind.id] = _server(kind, place, models, sockets)
            if found[kind.id].model is None:
                notes[kind.id] = f"{kind.name} on {place.address} has no model with tools."

    async with trio.open_nursery() as nursery:
        for kind in KINDS:
            port = _port(kind, environ, ports or {})
            place = None if port is None else place_of(port, seen)
            if place is None:
                continue
            if place.stranger is not None:
                notes[kind.id] = (
                    f"What listens on {place.address} belongs to another user (uid "
                    f"{place.stranger}) and is not asked for models."
                )
                continue
            nursery.start_soon(look, kind, place)
    order = [kind.id for kind in KINDS]
    return Found(
        tuple(found[name] for name in order if name in found),
        tuple(notes[name] for name in order if name in notes),
    )


class LocalServers:
    """What `find` finds, remembered for `LOCAL_FOUND_S` seconds.

    Args:
        environ: See `find`; what a client has sent counts before it.
        ports: See `find`.
        sockets: See `find`.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        ports: Mapping[str, int] | None = None,
        sockets: Sockets = listeners,
    ) -> None:
        self._environ = environ
        self._ports = ports
        self._sockets = sockets
        self._one = trio.Lock()
        self._known: tuple[float, str, Found] | None = None

    @property
    def known(self) -> Found:
        """What was found last, however long ago; for who cannot wait, in any thread."""
        return Found() if self._known is None else self._known[2]

    async def find(self, env: Mapping[str, str] | None = None) -> Found:
        """What is there: from memory if it was found just now, else looked for, once for all.

        Args:
            env: What the client who asks has sent.
        """
        environ = {**self._environ, **(env or {})}
        named = environ.get("OLLAMA_HOST", "")
        async with self._one:
            now = time.monotonic()
            if self._known is not None:
                then, there, found = self._known
                if there == named and now - then < limits.LOCAL_FOUND_S:
                    return found
            found = await find(environ, ports=self._ports, sockets=self._sockets)
            self._known = (time.monotonic(), named, found)
            return found


async def _models(kind: Kind, place: Place, environ: Mapping[str, str]) -> list[LocalModel]:
    """What a server has to talk to, the preferred ones first; nothing if it is not of this kind."""
    said: dict[str, Any] = {}

    async def hear(path: str) -> None:
        said[path] = await ask(place, path)

    with trio.move_on_after(limits.LOCAL_LIST_S):
        async with trio.open_nursery() as nursery:
            for path in kind.paths:
                nursery.start_soon(hear, path)
    models = list(kind.read(said, environ))
    if kind.id == "ollama":
        models = await _with_details(place, models, environ)
    return sorted((model for model in models if model.can_chat), key=_preference)


async def _with_details(
    place: Place, models: list[LocalModel], environ: Mapping[str, str]
) -> list[LocalModel]:
    """The same with what Ollama says of each by itself; running ones are asked about first."""
    models.sort(key=lambda model: not model.is_running)

    async def hear(index: int) -> None:
        shown = await ask(place, "/api/show", {"model": models[index].id})
        models[index] = answers.ollama_details(models[index], shown, environ)

    with trio.move_on_after(limits.LOCAL_DETAILS_S):
        async with trio.open_nursery() as nursery:
            for index in range(min(len(models), limits.LOCAL_DETAILS)):
                nursery.start_soon(hear, index)
    return models


def _preference(model: LocalModel) -> tuple[bool, int, int]:
    """In memory before on disk, with tools before not, the larger window before the smaller."""
    return not model.is_running, (True, None, False).index(model.tools), -model.window


def _port(kind: Kind, environ: Mapping[str, str], ports: Mapping[str, int]) -> int | None:
    """Where to look for a kind; ``None`` if its user says that it is on another machine."""
    if kind.id in ports:
        return ports[kind.id]
    named = environ.get("OLLAMA_HOST", "").strip() if kind.id == "ollama" else ""
    return _ollama_port(named, kind.port) if named else kind.port


def _ollama_port(named: str, default: int) -> int | None:
    """The port in ``OLLAMA_HOST``: ``[http://]HOST[:PORT][/…]``, if the host is this machine."""
    scheme, mark, rest = named.rpartition("://")
    if mark and scheme != "http":
        return None
    authority = rest.partition("/")[0]
    if authority in ("::", "::1"):
        return default
    matched = re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^:\[\]]*)(?::(\d{1,5}))?", authority)
    if matched is None or matched[1] not in ("", *_HERE):
        return None
    return int(matched[2]) if matched[2] else 80 if mark else default


_HERE: Final = ("127.0.0.1", "localhost", "0.0.0.0", "[::]", "[::1]")


def _server(kind: Kind, place: Place, models: list[LocalModel], sockets: Sockets) -> LocalServer:
    return LocalServer(
        Provider(kind.id, kind.name, "openai-chat", _Access(place, sockets), is_local=True),
        tuple(_info(kind, model) for model in models),
        place.address,
    )


def _info(kind: Kind, model: LocalModel) -> ModelInfo:
    """Its prices are 0 because that is what they are: nobody sends a bill."""
    return ModelInfo(
        provider=kind.id,
        model=model.id,
        name=model.id,
        context_window=model.window,
        cost_per_1m_in=0.0,
        cost_per_1m_out=0.0,
        cost_per_1m_in_cached=0.0,
        cost_per_1m_out_cached=0.0,
        can_reason=model.reasons,
        supports_attachments=model.images,
        supports_tools=model.tools,
    )


@attrs.frozen(eq=False)
class _Access:
    """See `models.provider.Provider.access`: the owner is looked at again before each request."""

    place: Place
    sockets: Sockets

    def __call__(self) -> Access:
        """Its address.

        Raises:
            ConfigError: Somebody else listens there by now.
        """
        now = place_of(self.place.port, self.sockets())
        if now is not None and now.stranger is not None:
            raise ConfigError(
                f"What listens on {now.address} belongs to another user (uid {now.stranger}) now; "
                "nothing is sent to it."
            )
        return Access(f"http://{self.place.address}/v1")
