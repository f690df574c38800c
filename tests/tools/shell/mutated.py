"""Lines that nobody wrote: both corpora cut up, joined and spoiled by a seeded generator."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence

from tests.tools.shell.jail import lines_of

_SIGNS = [*"|&;<>(){}[]$`'\"\\*?~#!=%^,:@+-/ \t\n", "&&", "||", ">>", "2>&1", "$(", "<(", "-"]
_ODD = ["\r", "\0", "\u00a0", "\u202e", "\u2028", "\x1b", "é", "\ud800", "\x7f", "\x0b"]
_TOKEN = re.compile(r"\s+|[|&;<>()]+|[^\s|&;<>()]+")


def mutated_lines(seed: int, count: int) -> Iterator[str]:
    """``count`` lines; the same for the same seed."""
    chance = random.Random(seed)  # for tests, repeatable
    safe, unsafe = lines_of("safe_commands.txt"), lines_of("unsafe_commands.txt")
    tokens = [token for line in (*safe, *unsafe) for token in _TOKEN.findall(line)]
    for _ in range(count):
        yield _line(chance, safe, unsafe, tokens)


def _line(
    chance: random.Random, safe: Sequence[str], unsafe: Sequence[str], tokens: Sequence[str]
) -> str:
    lines = [chance.choice(safe if chance.random() < 0.8 else unsafe)]
    while chance.random() < 0.3:
        lines += [chance.choice(["; ", " && ", " || ", " | ", "\n", ";", "&&", "|", " & "])]
        lines += [chance.choice(safe if chance.random() < 0.8 else unsafe)]
    parts = _TOKEN.findall("".join(lines))
    for _ in range(chance.choice([0, 1, 1, 2, 3])):
        at = chance.randrange(len(parts) + 1)
        how = chance.randrange(6)
        if how == 0:
            parts.insert(at, f" {chance.choice(tokens)} ")
        elif how == 1 and parts:
            del parts[at - 1]
        elif how == 2 and parts:
            parts[at - 1] = chance.choice(tokens)
        elif how == 3 and parts:
            spoiled = chance.choice(["'{}'", '"{}"', "\\{}", "'{}", "x{}"])
            parts[at - 1] = spoiled.format(parts[at - 1])
        elif how == 4:
            parts.insert(at, chance.choice(_SIGNS))
        else:
            text = "".join(parts)
            at = chance.randrange(len(text) + 1)
            sign = chance.choice(_SIGNS if chance.random() < 0.9 else _ODD)
            parts = _TOKEN.findall(text[:at] + sign + text[at + chance.randrange(2) :])
    return "".join(parts)
