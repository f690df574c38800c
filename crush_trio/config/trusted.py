"""The directories whose configuration the user trusts: one private file, read at every load."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias

import attrs

from crush_trio.config.document import check_value, read_document
from crush_trio.config.files import locked, write_document
from crush_trio.config.paths import trust_path
from crush_trio.protocol.errors import ConfigError

Trust: TypeAlias = Literal["unneeded", "none", "trusted", "changed"]
"""Of a directory: its files hold nothing inert; it is not trusted; it is, as its files are now; it
was, before they were changed."""


@attrs.frozen
class Trusted:
    """One trusted directory: its resolved path, the digest of its inert parts, since when."""

    directory: str
    digest: str
    since: str


@attrs.frozen
class TrustList:
    """What the file said. ``problem`` is a sentence if it could not be used: nobody is trusted."""

    entries: Mapping[str, Trusted] = attrs.field(factory=dict)
    problem: str = ""

    def state(self, directory: Path, digest: str) -> Trust:
        """Whether ``directory`` is trusted with inert parts of this digest.

        Symlinks are resolved: trust is bound to the place that the files are really in.
        """
        known = self.entries.get(os.path.realpath(directory))
        if known is None:
            return "none"
        return "trusted" if known.digest == digest else "changed"


def read_trust(environ: Mapping[str, str]) -> TrustList:
    """The list as it is now; never raises: what cannot be relied on trusts nobody."""
    path = trust_path(environ)
    if path is None:
        return TrustList()
    try:
        return TrustList(_read(path))
    except ConfigError as exc:
        return TrustList(problem=f"{exc} No directory is trusted until then.")


def trust(directory: Path, digest: str, environ: Mapping[str, str]) -> None:
    """Trust ``directory`` as long as its inert parts have this digest; blocking.

    Raises:
        ConfigError: The list cannot be read, relied on or written; nothing changed.
    """
    path = _path(environ)
    with locked(path):
        entries = _read(path)
        name = os.path.realpath(directory)
        since = datetime.now(UTC).isoformat(timespec="seconds")
        _write(path, {**entries, name: Trusted(name, digest, since)})


def revoke(directory: Path | str, environ: Mapping[str, str]) -> bool:
    """Trust ``directory`` no more; whether it was on the list. It need not exist any longer.

    Raises:
        ConfigError: As `trust`.
    """
    path = _path(environ)
    with locked(path):
        entries = _read(path)
        gone = {str(directory), os.path.realpath(directory)} & set(entries)
        if gone:
            _write(path, {name: each for name, each in entries.items() if name not in gone})
        return bool(gone)


def _path(environ: Mapping[str, str]) -> Path:
    path = trust_path(environ)
    if path is None:
        raise ConfigError("There is no place to keep trust in: HOME is not set.")
    return path


def _read(path: Path) -> dict[str, Trusted]:
    document = read_document(path, private=True)
    if document is None:
        return {}
    found: dict[str, Trusted] = {}
    directories = document.get("directories")
    if document.get("version") != 1 or not isinstance(directories, dict):
        raise ConfigError(f"{path}: not a list of trusted directories of this version; remove it.")
    for name, entry in directories.items():
        with suppress(TypeError, KeyError):  # an entry that says nothing trusts nothing
            found[name] = Trusted(name, str(entry["digest"]), str(entry["since"]))
    return found


def _write(path: Path, entries: Mapping[str, Trusted]) -> None:
    directories: dict[str, Any] = {
        name: {"digest": each.digest, "since": each.since} for name, each in sorted(entries.items())
    }
    document = {"version": 1, "directories": directories}
    check_value(document, path)  # a directory's name may hold bytes that are no text
    write_document(path, document)
