"""From a provider and a model's name to the `Target` that a request needs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import attrs

from crush_trio.config.expand import expand, layered
from crush_trio.models.provider import Choice, Provider, Target
from crush_trio.protocol.errors import ConfigError
from crush_trio.protocol.models import ModelInfo
from crush_trio.server.providers.access import ProviderAccess, Secrets
from crush_trio.server.providers.known import Known


def target_of(
    known: Known,
    model: str,
    selected: Mapping[str, Any],
    env: Mapping[str, str],
    secrets: Secrets,
) -> Target:
    """A model of a provider, and how it was chosen to answer. Nothing is run or asked.

    Args:
        selected: What the configuration says about this choice.
        env: What the client sent of its environment.
        secrets: Told of what will be sent as a secret.

    Raises:
        ConfigError: The choice does not fit the model; a template is broken.
    """
    info = known.info(model)
    if "openrouter" in known.quirks:
        info = attrs.evolve(info, reports_cost=True)
    choice = known.choice(model, selected)
    _check_effort(info, choice)
    table = known.table
    provider = Provider(
        known.id,
        known.facts.name,
        known.facts.dialect,
        known.access or ProviderAccess(known, env, secrets),
        table.get("extra_body", {}),
        table.get("system_prompt_prefix", ""),
        known.quirks | _api_version(known, env),
        known.facts.is_local,
    )
    return Target(provider, info, choice)


def _check_effort(info: ModelInfo, choice: Choice) -> None:
    wanted, levels = choice.reasoning_effort, info.reasoning_levels
    if wanted and levels and wanted not in levels:
        raise ConfigError(
            f"reasoning_effort of {info.provider}/{info.model}: "
            f"expected one of {', '.join(levels)}."
        )


def _api_version(known: Known, env: Mapping[str, str]) -> frozenset[str]:
    """Azure's dated version, as the quirk its dialect knows; no command makes one up."""
    template = known.table.get("api_version", "")
    if not template or "azure" not in known.quirks:
        return frozenset()
    where = f"providers.{known.id}.api_version"
    version = expand(template, layered(env, os.environ), where=where).strip()
    return frozenset({f"api-version={version}"}) if version else frozenset()
