"""Model servers of this machine among the providers that are known."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

import attrs

from crush_trio.models.local import Found, LocalServer
from crush_trio.server.providers.known import Known


def with_local(providers: Mapping[str, Known], found: Found) -> dict[str, Known]:
    """The providers, with what was found on this machine.

    A server that is not configured is reached as it was found, and has the models it named. Of a
    configured one at the same address it is known what its models are. One whose provider is not
    among ``providers`` stays away: only configured providers are wanted then.
    """
    both = dict(providers)
    for server in found.servers:
        known = both.get(server.provider.id)
        if known is not None and not known.is_configured:
            both[known.id] = _found(known, server)
        for each in providers.values():
            if each.is_configured and each.facts.is_local and _port(each) == _port_of(server):
                theirs = {model.model: model for model in server.models}
                infos = {
                    name: attrs.evolve(model, provider=each.id) for name, model in theirs.items()
                }
                both[each.id] = attrs.evolve(each, models={**infos, **each.models})
    return both


def _found(known: Known, server: LocalServer) -> Known:
    best = "" if server.model is None else server.model.model
    facts = attrs.evolve(known.facts, default_large=best, base_url=f"http://{server.address}/v1")
    return attrs.evolve(
        known,
        facts=facts,
        models={model.model: model for model in server.models},
        quirks=known.quirks | server.provider.quirks,
        access=server.provider.access,
    )


def _port(known: Known) -> int | None:
    try:
        return urlsplit(known.facts.base_url).port
    except ValueError:  # a template
        return None


def _port_of(server: LocalServer) -> int | None:
    return urlsplit(f"//{server.address}").port
