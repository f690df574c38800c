"""How many tokens a model can take, and how many its server really lets it take."""

from __future__ import annotations

from typing import Any, Final

import orjson
import trio

from crush_trio import limits
from crush_trio.http.connections import Connections
from crush_trio.http.proxies import is_loopback
from crush_trio.models.checkup.reaching import origin_of
from crush_trio.models.failures import Failure
from crush_trio.models.local.asking import ask
from crush_trio.models.local.owners import Place
from crush_trio.models.network.get import get
from crush_trio.models.provider import Access, Target
from crush_trio.protocol.checks import Check

_SMALL: Final = 8_192  # a window in which system prompt and tools leave little room to work


async def window(
    target: Target, connections: Connections, access: Access, *, source: str, is_ollama: bool
) -> Check:
    """The check ``context``.

    Args:
        source: Who says how large the window is; for people.
        is_ollama: The server can be asked which window it uses, if the model is in memory.
    """
    said = target.info.context_window
    used, most = 0, 0
    if is_ollama:
        with trio.move_on_after(limits.DOCTOR_CONNECT_S):
            used, most = await _of_ollama(target, connections, access)
    return judged(said, used, most, provider=target.provider.id, source=source)


def judged(said: int, used: int, most: int, *, provider: str, source: str) -> Check:
    """What these numbers of tokens mean; pure.

    Args:
        said: What we take the window to be; 0 if nobody knows.
        used: What an Ollama server uses for the model now; 0 if it did not say.
        most: What the model itself can take; 0 as well.
    """
    data: dict[str, Any] = {"window": said, "used": used or None, "most": most or None}
    able = max(said, most)
    if used and used < able:
        seen = f"Ollama uses {used} tokens of the {able} that are possible, and forgets the rest"
        wanted = min(able, limits.DOCTOR_OLLAMA_WINDOW)
        advice = (
            f"Start Ollama with OLLAMA_CONTEXT_LENGTH={wanted}, or set num_ctx in the model's "
            "Modelfile, as far as memory allows."
        )
        return Check("context", "warn", seen, advice, data=data)
    if not said and not used:
        seen = "its window is unknown, so long conversations are not summarised in time"
        advice = f"Set context_window of the model under providers.{provider}.models."
        return Check("context", "warn", seen, advice, data=data)
    tokens = said or used
    seen = f"{tokens} tokens, says {source}"
    if tokens < _SMALL:
        advice = "Give the model a larger window, or choose another: tools and files need room."
        return Check("context", "warn", seen, advice, data=data)
    return Check("context", "ok", seen, data=data)


async def _of_ollama(target: Target, connections: Connections, access: Access) -> tuple[int, int]:
    """The window it uses for the model, and the one the model was made for; 0 where unknown."""
    try:
        origin = origin_of(access.base_url)
        root = f"{origin.scheme}://{origin.name}"
        local = target.provider.is_local
        told = await get(
            connections, f"{root}/api/ps", is_local=local, within_s=limits.MODEL_LIST_S
        )
        running = orjson.loads(told.body) if told.status == 200 else None
    except (Failure, orjson.JSONDecodeError):
        return 0, 0
    wanted = target.info.model
    shown: Any = None
    if origin.scheme == "http" and is_loopback(origin.host):
        shown = await ask(Place(origin.host, origin.port), "/api/show", {"model": wanted})
    return _used(running, wanted), _most(shown)


def _used(running: Any, wanted: str) -> int:
    models = running.get("models") if isinstance(running, dict) else None
    for each in models if isinstance(models, list) else ():
        name = each.get("name") if isinstance(each, dict) else None
        if name in (wanted, f"{wanted}:latest"):
            return _whole(each.get("context_length"))
    return 0


def _most(shown: Any) -> int:
    about = shown.get("model_info") if isinstance(shown, dict) else None
    items = about.items() if isinstance(about, dict) else ()
    return max((_whole(v) for k, v in items if k.endswith(".context_length")), default=0)


def _whole(value: Any) -> int:
    return value if type(value) is int and 0 < value <= limits.CATALOGUE_TOKENS_MAX else 0
