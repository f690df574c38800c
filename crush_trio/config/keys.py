"""Which providers have a key, and which lack theirs (contract 8 and 9)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from crush_trio.config.expand import expand
from crush_trio.config.load import Config

Usual: TypeAlias = Mapping[str, Sequence[str]]
"""The variables that usually hold the key of a provider, by the provider's id."""

USUAL: Final[Usual] = {
    "anthropic": ("ANTHROPIC_API_KEY",),
    "openai": ("OPENAI_API_KEY",),
    "gemini": ("GEMINI_API_KEY",),
    "openrouter": ("OPENROUTER_API_KEY",),
    "groq": ("GROQ_API_KEY",),
    "mistral": ("MISTRAL_API_KEY",),
    "deepseek": ("DEEPSEEK_API_KEY",),
    "xai": ("XAI_API_KEY",),
}
"""Those of the best known ones; a catalogue knows more."""

_NEEDS_KEY: Final = frozenset({"anthropic", "openai", "google", "openrouter", "vercel"})


_VARIABLE: Final = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)")


def environment_keys(environ: Mapping[str, str], usual: Usual = USUAL) -> dict[str, str]:
    """Providers that a usual variable is set for and not empty, with that variable's name."""
    found = {
        provider: next((name for name in names if environ.get(name)), None)
        for provider, names in usual.items()
    }
    return {provider: name for provider, name in found.items() if name}


def providers_without_key(config: Config, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Configured providers that are not disabled and lack their key, see `missing_key`.

    Raises:
        ConfigError: A key's template cannot be expanded.
    """
    return tuple(
        name
        for name, provider in config.providers.items()
        if not provider.get("disable") and missing_key(name, provider, environ)
    )


def missing_key(
    name: str,
    provider: Mapping[str, Any],
    environ: Mapping[str, str],
    usual: Usual = USUAL,
) -> str:
    """What to do about the key that a configured provider lacks; ``""`` if it does not lack one.

    It does if its ``api_key`` expands to nothing, or if it has none, needs one by its type or its
    name and its usual variable is not set. An OAuth token counts as a key; so does a
    ``$(command)``, which is not run here: what it gives is seen when it is used.

    Raises:
        ConfigError: The template cannot be expanded.
    """
    if provider.get("oauth"):
        return ""
    template = provider.get("api_key")
    where = f"providers.{name}.api_key"
    if isinstance(template, str) and template:
        found = expand(template, environ, run_command=_not_run, where=where).strip()
        named = " or ".join(dict.fromkeys(_VARIABLE.findall(template)))
        return "" if found else f"set the variable {named}" if named else f"set {where}"
    # One of the known providers, if the configuration does not make something else of the name.
    is_usual = bool(usual.get(name)) and not (provider.get("type") or provider.get("base_url"))
    if not is_usual and provider.get("type", name) not in _NEEDS_KEY:
        return ""
    variables = usual.get(name, ())
    if any(environ.get(variable) for variable in variables):
        return ""
    return f"set the variable {' or '.join(variables)}, or {where}" if variables else f"set {where}"


def _not_run(command: str, environ: Mapping[str, str]) -> str:
    return "not run"
