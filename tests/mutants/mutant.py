"""One mutant: a bug as a search and replace in one file, and what must fail because of it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import attrs

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


class StaleMutant(Exception):
    """The text a mutant replaces is not in its file exactly once: the code has moved on."""


@attrs.frozen
class Mutant:
    """A bug class as a change of our code.

    ``origin`` says where this bug was seen or is to be expected. ``killed_by`` are pytest node
    ids, or ``explore:SCENARIO`` for the interleaving explorer; the first one is tried first.
    """

    name: str
    title: str
    origin: str
    file: str
    find: str
    replace: str
    killed_by: tuple[str, ...]

    def applied_to(self, source: str) -> str:
        """The file's text with the bug in it.

        Raises:
            StaleMutant: ``find`` is not there exactly once.
        """
        found = source.count(self.find)
        if found != 1:
            raise StaleMutant(f"{self.name}: its text occurs {found} times in {self.file}")
        return source.replace(self.find, self.replace)


def read_mutants(folder: Path = HERE) -> tuple[Mutant, ...]:
    """All mutants, by name."""
    return tuple(read_mutant(path) for path in sorted(folder.glob("*.toml")))


def read_mutant(path: Path) -> Mutant:
    """One mutant from its file.

    Raises:
        KeyError: A key is missing.
        tomllib.TOMLDecodeError: The file is no TOML.
    """
    found = tomllib.loads(path.read_text("utf-8"))
    return Mutant(
        path.stem,
        found["title"],
        found["origin"],
        found["file"],
        found["find"],
        found["replace"],
        tuple(found["killed_by"]),
    )
