"""Which providers have a key, and which lack theirs (contract 8 and 9)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from crush_trio.config.expand import expand

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


SECRET_HEADER: Final = re.compile(r"auth|key|token|secret|cookie|credential", re.IGNORECASE)
"""Finds the names of headers whose values are secrets."""
_VARIABLE: Final = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)")


def environment_keys(environ: Mapping[str, str], usual: Usual = USUAL) -> dict[str, str]:
    """Providers that a usual variable is set for and not empty, with that variable's name."""
    found = {
        provider: next((name for name in names if environ.get(name)), None)
        for provider, names in usual.items()
    }
    return {provider: name for provider, name in found.items() if name}


def missing_key(
    name: str,
    provider: Mapping[str, Any],
    environ: Mapping[str, str],
    usual: Usual = USUAL,
) -> str:
    """What to do about the key that a configured provider lacks; ``""`` if it does not lack one.

    It does if its ``api_key`` expands to nothing, or if it has none, needs one by its type or its
    name and its usual variable is not set. An OAuth token counts as a key, and so does a header
    that shows who we are; so does a ``$(command)``, which is not run here: what it gives is seen
    when it is used.

    Raises:
        ConfigError: The template cannot be expanded.
    """
    # One of the known providers, if the configuration does not make something else of the name.
    is_usual = bool(usual.get(name)) and not (provider.get("type") or provider.get("base_url"))
    needs_key = is_usual or provider.get("type", name) in _NEEDS_KEY
    return lacking(name, provider, environ, usual=usual.get(name, ()), needs_key=needs_key)


def lacking(
    name: str,
    provider: Mapping[str, Any],
    environ: Mapping[str, str],
    *,
    usual: Sequence[str],
    needs_key: bool,
) -> str:
    """`missing_key`, for a provider whose usual variables and whose need of a key are known.

    Raises:
        ConfigError: The template of its key cannot be expanded.
    """
    if provider.get("oauth", {}).get("access_token"):
        return ""
    template = provider.get("api_key")
    where = f"providers.{name}.api_key"
    if isinstance(template, str) and template:
        found = expand(template, environ, run_command=_not_run, where=where).strip()
        named = " or ".join(dict.fromkeys(_VARIABLE.findall(template)))
        return "" if found else f"set the variable {named}" if named else f"set {where}"
    if not needs_key or any(environ.get(variable, "").strip() for variable in usual):
        return ""
    if any(SECRET_HEADER.search(header) for header in provider.get("extra_headers", {})):
        return ""
    return f"set the variable {' or '.join(usual)}, or {where}" if usual else f"set {where}"


def _not_run(command: str, environ: Mapping[str, str]) -> str:
    return "not run"
