"""The catalogue that counts: the one that was shipped, with a newer copy laid over it."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Final, TypeAlias

import attrs

from crush_trio import limits
from crush_trio.models.catalogue.catalogue import Catalogue
from crush_trio.models.catalogue.reading import read
from crush_trio.protocol.errors import DecodeError

FILE: Final = "catalogue.json"
"""The name of the shipped file, and of the refreshed copy in the data directory."""

_Identity: TypeAlias = tuple[int, int, int]
_loaded: dict[Path, tuple[_Identity, Catalogue]] = {}


@functools.cache
def shipped() -> Catalogue:
    """The catalogue of this version; read once per process, in about two milliseconds."""
    return read(Path(__file__).with_name(FILE).read_bytes(), FILE)


def load(extra: Path | None = None) -> Catalogue:
    """The shipped catalogue, with what a newer refreshed copy says laid over it; blocking.

    Asking again costs one ``stat`` until the copy changes. A copy that is missing, not newer, or
    broken changes nothing; why a broken one does not count is a sentence in ``notices``.

    Args:
        extra: The refreshed copy, usually `FILE` in the data directory.
    """
    if extra is None:
        return shipped()
    try:
        status = extra.stat()
    except OSError:
        return shipped()
    identity = (status.st_ino, status.st_size, status.st_mtime_ns)
    known = _loaded.get(extra)
    if known is None or known[0] != identity:
        known = _loaded[extra] = (identity, _overlaid(extra))
    return known[1]


def _overlaid(extra: Path) -> Catalogue:
    mine = shipped()
    try:
        newer = read_copy(extra)
    except (OSError, DecodeError) as exc:
        notice = f"The refreshed list of models does not count, the shipped one does: {exc}"
        return attrs.evolve(mine, notices=(notice,))
    return mine.overlaid(newer) if newer.date > mine.date else mine


def read_copy(path: Path) -> Catalogue:
    """The catalogue in a file, by itself; blocking.

    Raises:
        OSError: It cannot be read.
        DecodeError: It is not one, or larger than `limits.CATALOGUE_BYTES`.
    """
    with path.open("rb") as file:
        raw = file.read(limits.CATALOGUE_BYTES + 1)
    if len(raw) > limits.CATALOGUE_BYTES:
        raise DecodeError(f"{path}: larger than {limits.CATALOGUE_BYTES} bytes.")
    return read(raw, str(path))
