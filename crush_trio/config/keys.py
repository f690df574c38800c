"""Which providers have a key, and which lack theirs (contract 8 and 9)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from crush_trio.config.expand import expand
from crush_trio.config.load import Config

VARIABLES: Final = {
    "anthropic": "ANTHROPIC_API_KEY",
    "openai": "OPENAI_API_KEY",
    "gemini": "GEMINI_API_KEY",
    "openrouter": "OPENROUTER_API_KEY",
    "groq": "GROQ_API_KEY",
    "mistral": "MISTRAL_API_KEY",
    "deepseek": "DEEPSEEK_API_KEY",
    "xai": "XAI_API_KEY",
}
"""The variable that usually holds the key of a provider, by the provider's id."""

_NEEDS_KEY: Final = frozenset({"anthropic", "openai", "google", "openrouter", "vercel"})


_VARIABLE: Final = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)")


def environment_keys(environ: Mapping[str, str]) -> dict[str, str]:
    """Providers whose usual variable is set and not empty, with that variable's name."""
    return {provider: name for provider, name in VARIABLES.items() if environ.get(name)}


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


def missing_key(name: str, provider: Mapping[str, Any], environ: Mapping[str, str]) -> str:
    """What to do about the key that a configured provider lacks; ``""`` if it does not lack one.

    It does if its ``api_key`` expands to nothing, or if it has none, needs one by its type and
    its usual variable is not set. An OAuth token counts as a key; so does a ``$(command)``, which
    is not run here: what it gives is seen when it is used.

    Raises:
        ConfigError: The template cannot be expanded.
    """
    if provider.get("oauth"):
        return ""
    template = provider.get("api_key")
    where = f"providers.{name}.api_key"
    if isinstance(template, str) and template:
        found = expand(template, environ, run_command=_not_run, where=where).strip()
        variables = ", ".join(dict.fromkeys(_VARIABLE.findall(template)))
        return "" if found else f"set the variable {variables or 'it names'}"
    if provider.get("type", name) not in _NEEDS_KEY:
        return ""
    usual = VARIABLES.get(name)
    if usual is None:
        return f"set {where}"
    return "" if environ.get(usual) else f"set the variable {usual}, or {where}"


def _not_run(command: str, environ: Mapping[str, str]) -> str:
    return "not run"
