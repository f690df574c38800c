"""Which providers have a key, and which lack theirs (contract 8 and 9)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

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


def environment_keys(environ: Mapping[str, str]) -> dict[str, str]:
    """Providers whose usual variable is set and not empty, with that variable's name."""
    return {provider: name for provider, name in VARIABLES.items() if environ.get(name)}


def providers_without_key(config: Config, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Configured providers that are not disabled and lack their key.

    A provider lacks its key if its ``api_key`` expands to nothing, or if it has none, needs one
    by its type and its usual variable is not set. An OAuth token counts as a key.

    Raises:
        ConfigError: A key's template cannot be expanded.
    """
    return tuple(
        name
        for name, provider in config.providers.items()
        if not provider.get("disable") and not _has_key(name, provider, environ)
    )


def _has_key(name: str, provider: Mapping[str, object], environ: Mapping[str, str]) -> bool:
    if provider.get("oauth"):
        return True
    template = provider.get("api_key")
    if isinstance(template, str) and template:
        where = f"providers.{name}.api_key"
        return bool(expand(template, environ, allow_commands=True, where=where))
    if provider.get("type", name) not in _NEEDS_KEY:
        return True
    return bool(environ.get(VARIABLES.get(name, "")))
