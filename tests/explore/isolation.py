"""Takes out of the package what makes two runs of one schedule differ: threads, clocks, chance.

Also takes out what costs time and decides nothing here: logging, and the JSON of events, whose
payloads are kept as they are (`payload_of`). What is tested of encoding is tested elsewhere.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import ModuleType
from typing import Any

import attrs
import trio

import crush_trio.agent
import crush_trio.host
import crush_trio.journal
import crush_trio.journal.journal as journal_module
import crush_trio.store.memory
from crush_trio import limits
from crush_trio.journal import Feed
from crush_trio.protocol import ids
from crush_trio.protocol.events import Payload
from crush_trio.server.routes import prompts as prompt_route

EPOCH_S = 1_700_000_000  # what the wall clock said when virtual time was 0


@attrs.frozen
class Shown:
    """An event's kind, change and payload, as somebody emitted them."""

    kind: str
    change: str
    payload: Any


_shown: list[Shown] = []
_ids = 0


_base = (0, 0)


def start_over() -> None:
    """Forget the last schedule: ids count from the same number again."""
    global _ids
    _ids = _base[0]
    del _shown[_base[1] :]


def keep_so_far() -> None:
    """What there is now belongs to every schedule from now on."""
    global _base
    _base = (_ids, len(_shown))


def forget_everything() -> None:
    """As in a fresh process."""
    global _base
    _base = (0, 0)
    start_over()


def payload_of(data: bytes) -> Shown:
    """What an event was before it was encoded."""
    return _shown[int(data[data.rindex(b":") + 1 : -1])]


def _encode_rest(kind: str, change: str, payload: Payload, workspace_id: str) -> bytes:
    _shown.append(Shown(kind, change, payload))
    return b'"n":%d}' % (len(_shown) - 1)


def _encode_transient(kind: str, change: str, payload: Payload, workspace_id: str) -> bytes:
    return b"{" + _encode_rest(kind, change, payload, workspace_id)


class _Chance:
    """``secrets``, counting."""

    @staticmethod
    def token_bytes(n: int) -> bytes:
        global _ids
        _ids += 1
        return _ids.to_bytes(n, "big")[::-1]


class _Wall:
    """``time``, with the wall clock at virtual time."""

    perf_counter = staticmethod(time.perf_counter)
    monotonic = staticmethod(time.monotonic)

    @staticmethod
    def time_ns() -> int:
        try:
            virtual = trio.current_time()
        except RuntimeError:
            virtual = 0.0
        return int((EPOCH_S + virtual) * 1e9)

    @classmethod
    def time(cls) -> float:
        return cls.time_ns() / 1e9


def wall_ms() -> int:
    """The store's clock."""
    return _Wall.time_ns() // 1_000_000


async def _inline(sync_fn: Callable[..., Any], *args: Any, **_: Any) -> Any:
    """A thread that begins and ends at two checkpoints of its caller."""
    await trio.lowlevel.checkpoint()
    result = sync_fn(*args)
    await trio.lowlevel.checkpoint()
    return result


@attrs.define
class _Caller:
    """The request being handled, for the prompt route, which notes its run id in it."""

    principal: str = "me"
    run_id: str | None = None

    @property
    def peer(self) -> _Caller:
        """It came from here."""
        return self

    @property
    def is_unix(self) -> bool:
        """Over the unix socket."""
        return True


_MISSING = object()
_evolvers: dict[type[Any], Callable[..., Any]] = {}


def _evolve(inst: Any, **changes: Any) -> Any:
    """``attrs.evolve``, compiled once per class: it is a fifth of a schedule's time otherwise."""
    cls = type(inst)
    evolver = _evolvers.get(cls)
    if evolver is None:
        fields = [field for field in attrs.fields(cls) if field.init]
        heads = ", ".join(f"{field.alias}=M" for field in fields)
        values = ", ".join(
            f"{field.alias}=i.{field.name} if {field.alias} is M else {field.alias}"
            for field in fields
        )
        scope = {"M": _MISSING, "C": cls}
        evolver = _evolvers[cls] = eval(f"lambda i, *, {heads}: C({values})", scope)
    return evolver(inst, **changes)


def _modules() -> list[ModuleType]:
    for package in (crush_trio.agent, crush_trio.host, crush_trio.journal):
        for found in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            importlib.import_module(found.name)
    wanted = ("crush_trio.agent.", "crush_trio.host.", "crush_trio.journal.", "crush_trio.store.")
    return [
        module
        for name, module in sorted(sys.modules.items())
        if name.startswith(wanted) and not name.startswith("crush_trio.store.sqlite")
    ]


@contextmanager
def isolated() -> Iterator[None]:
    """No thread, no clock, no chance; for as long as schedules are explored."""
    undo: list[tuple[Any, str, Any]] = []

    def put(where: Any, name: str, value: Any) -> None:
        undo.append((where, name, getattr(where, name)))
        setattr(where, name, value)

    for module in _modules():
        if module.__dict__.get("time") is time:
            put(module, "time", _Wall)
        for name, replaced in (
            ("encode_rest", _encode_rest),
            ("encode_transient", _encode_transient),
        ):
            if name in module.__dict__ and module.__name__ != "crush_trio.store.encoding":
                put(module, name, replaced)
    put(attrs, "evolve", _evolve)
    # Small enough that subscribers fall behind, and replay in several pages.
    put(journal_module, "Feed", partial(Feed, max_entries=6))
    put(limits, "EVENT_PAGE", 3)
    put(limits, "EVENT_SCAN", 5)
    put(ids, "secrets", _Chance)
    put(trio.to_thread, "run_sync", _inline)
    caller = _Caller()
    put(prompt_route, "current_call", lambda: caller)
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
        for where, name, value in reversed(undo):
            with suppress(AttributeError):  # whoever took it away meanwhile wanted that
                setattr(where, name, value)
