"""Models as a table for people (pure)."""

from __future__ import annotations

from collections.abc import Iterable

from crush_trio.cli.render import table
from crush_trio.client.shapes import JsonObject, child, number, text

_HEADER = ("MODEL", "WINDOW", "OUTPUT", "IN $/1M", "OUT $/1M", "CAN", "")
_ABILITIES = (
    ("supports_tools", "tools"),
    ("supports_attachments", "images"),
    ("can_reason", "reasoning"),
)


def name_of(model: JsonObject) -> str:
    """As ``-m`` takes it."""
    return f"{text(model, 'provider')}/{text(model, 'model')}"


def models_table(models: Iterable[JsonObject]) -> str:
    """One model a line: its name first, then window, output limit, prices and abilities.

    What nobody knows is ``?``, never 0. The last column says which is used when none is named.
    """
    return table([_row(model) for model in models], _HEADER)


def _row(model: JsonObject) -> tuple[str, ...]:
    if model.get("is_language_model") is False:
        chosen = f"  {text(model, 'chosen')}" if text(model, "chosen") else ""
        return (f"{name_of(model)}  (no language model){chosen}", *[""] * (len(_HEADER) - 1))
    return (
        name_of(model),
        tokens(number(model, "context_window")),
        tokens(number(model, "max_output_tokens")),
        price(model.get("cost_per_1m_in")),
        price(model.get("cost_per_1m_out")),
        abilities(model),
        text(model, "chosen"),
    )


def tokens(count: float) -> str:
    """A number of tokens, rounded down to a thousand: ``200k``, ``1.04M``; ``?`` if unknown."""
    if count <= 0:
        return "?"
    if count < 1_000:
        return f"{count:.0f}"
    if count < 1_000_000:
        return f"{count // 1_000:.0f}k"
    return f"{count // 10_000 / 100:g}M"


def price(value: object) -> str:
    """US dollars per million tokens: ``3``, ``0.075``, ``0``; ``?`` if unknown."""
    known = type(value) is int or type(value) is float
    return f"{value:g}" if known else "?"


def abilities(model: JsonObject) -> str:
    """What it can do, and with a question mark what nobody knows."""
    words = []
    for key, word in _ABILITIES:
        value = model.get(key)
        if value is True:
            words.append(word)
        elif value is None:
            words.append(f"{word}?")
    return " ".join(words) or "-"


def refreshed_text(answer: JsonObject) -> str:
    """What a refresh found: the date, how much there is, and what changed."""
    counted = (
        f"{number(answer, 'models'):.0f} models of {number(answer, 'providers'):.0f} providers"
    )
    if answer.get("is_new") is not True:
        return f"nothing newer than {text(answer, 'date')} ({counted}) at {text(answer, 'url')}"
    counts = child(answer, "counts")
    lines = [f"now of {text(answer, 'date')}: {counted}, from {text(answer, 'url')}"]
    for key in ("added", "removed", "changed"):
        named = answer.get(key)
        names = [name for name in named if type(name) is str] if type(named) is list else []
        more = number(counts, key) - len(names)
        if names:
            lines.append(f"{key}: {', '.join(names)}{f' and {more:.0f} more' if more > 0 else ''}")
    return "\n".join(lines)
