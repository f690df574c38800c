"""Which models there are, which can be used, and which are used when none is named; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from crush_trio.host.kit import Listed
from crush_trio.protocol.errors import ConfigError
from crush_trio.protocol.models import ModelInfo
from crush_trio.server.providers.access import key_problem
from crush_trio.server.providers.known import Known
from crush_trio.server.providers.naming import unusable


def listing(
    providers: Iterable[Known],
    environ: Mapping[str, str],
    built_in: Sequence[ModelInfo],
    used: Sequence[ModelInfo],
) -> tuple[Listed, ...]:
    """Every model that is known, the built-in ones last.

    Args:
        providers: The servers of this machine among them, as they were found just now.
        environ: Where keys are looked for.
        built_in: What needs no provider.
        used: The large and the small model that would be used; one that is in no list, is listed.
    """
    names = [(info.provider, info.model) for info in used]
    slots = dict(zip(reversed(names), ("small", "large")[-len(names) :], strict=False))
    infos: dict[tuple[str, str], tuple[ModelInfo, bool]] = {}
    for each in providers:
        usable = _can_be_used(each, environ)
        infos |= {(each.id, model): (info, usable) for model, info in each.models.items()}
    for info in used:
        infos.setdefault((info.provider, info.model), (info, True))
    for info in built_in:
        infos.pop((info.provider, info.model), None)
        infos[info.provider, info.model] = (info, True)
    return tuple(Listed(info, usable, slots.get(name)) for name, (info, usable) in infos.items())


def _can_be_used(provider: Known, environ: Mapping[str, str]) -> bool:
    if unusable(provider):
        return False
    if provider.facts.is_local and not provider.is_configured:
        return provider.access is not None  # it was found just now
    try:
        return not key_problem(provider, environ)
    except ConfigError:  # a broken template is told by whoever needs it
        return False
