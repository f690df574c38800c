"""Fetching a newer catalogue: checked before it takes the place of the copy at hand."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import attrs
import orjson
import trio

from crush_trio import limits
from crush_trio.http.connections import Connections
from crush_trio.models.catalogue.catalogue import Catalogue
from crush_trio.models.catalogue.load import load, shipped
from crush_trio.models.catalogue.models_dev import convert, is_models_dev
from crush_trio.models.catalogue.reading import LOOPBACK, from_value, is_safe
from crush_trio.models.failures import Failure
from crush_trio.models.network.get import get
from crush_trio.protocol.errors import DecodeError, Refused
from crush_trio.protocol.models import ModelInfo

CATALOGUE_URL: Final = "https://models.dev/api.json"
"""Where a newer list comes from unless ``options.catalogue_url`` or the caller says otherwise."""


@attrs.frozen
class Refreshed:
    """What a refresh found.

    Args:
        url: Where it came from.
        date: Of the list that counts now.
        providers: How many providers of it have models.
        models: How many models it has.
        is_new: Whether another list counts than before.
        added: Models that are new, as ``provider/model``; the first of them.
        removed: Models that are gone.
        changed: Models whose numbers or abilities are others than before.
        counts: How many there are of these three in all.
    """

    url: str
    date: str
    providers: int
    models: int
    is_new: bool
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    counts: Mapping[str, int] = attrs.field(factory=dict)


def _today() -> datetime.date:
    return datetime.datetime.now(datetime.UTC).date()


class Refresher:
    """Refreshes the one copy of a server's data directory, one at a time.

    Args:
        copy: Where the copy is kept; `load` is to be given the same path.
        connections: Knows proxies and certificates.
        today: The day it is, in UTC.
    """

    def __init__(
        self,
        copy: Path,
        connections: Connections,
        today: Callable[[], datetime.date] = _today,
    ) -> None:
        self._copy = copy
        self._connections = connections
        self._today = today
        self._one = trio.Lock()

    async def refresh(self, url: str = CATALOGUE_URL) -> Refreshed:
        """Fetch a catalogue, in our format or in that of models.dev, and let it count if newer.

        When anything is wrong, whatever counted before goes on to count.

        Raises:
            Refused: ``bad_request`` for an address that is not https (http on loopback),
                ``catalogue_unreachable`` if nothing came, ``catalogue_invalid`` if what came is
                no catalogue, ``catalogue_unwritable`` if it cannot be kept.
        """
        check_url(url)
        async with self._one:
            raw = await self._fetch(url)
            return await trio.to_thread.run_sync(replace, self._copy, raw, url, self._today())

    async def _fetch(self, url: str) -> bytes:
        try:
            answer = await get(
                self._connections,
                url,
                headers={"accept": "application/json"},
                is_local=urlsplit(url).hostname in LOOPBACK,
                within_s=limits.CATALOGUE_FETCH_S,
                most_bytes=limits.CATALOGUE_BYTES,
            )
        except Failure as exc:
            raise Refused("catalogue_unreachable", exc.message) from exc
        if answer.status != 200:
            raise Refused(
                "catalogue_unreachable",
                f"{url} answered {answer.status} instead of a list of models.",
            )
        return answer.body


def check_url(url: str) -> None:
    """Refuse an address that a catalogue must not come from.

    Raises:
        Refused: ``bad_request``.
    """
    if not is_safe(url, is_local=False) and not is_safe(url, is_local=True):
        raise Refused(
            "bad_request", "The address of a catalogue must begin with https:// (http on loopback)."
        )


def replace(copy: Path, raw: bytes, url: str, today: datetime.date) -> Refreshed:
    """Let the catalogue in ``raw`` count if it is newer than what does; blocking.

    A power cut at any point leaves the old copy or the new one, whole.

    Args:
        copy: Where the copy is kept.
        raw: What came.
        url: Where it came from, for messages.
        today: No list may be dated later than the day after.

    Raises:
        Refused: ``catalogue_invalid`` or ``catalogue_unwritable``.
    """
    before = load(copy)
    text, newer = _checked(raw, url, today)
    if newer.date < before.date or newer.date <= shipped().date:
        return _summary(url, before, before)
    try:
        _write(copy, text)
    except OSError as exc:
        raise Refused(
            "catalogue_unwritable", f"The list of models cannot be kept in {copy}: {exc.strerror}."
        ) from exc
    return _summary(url, before, load(copy))


def _checked(raw: bytes, url: str, today: datetime.date) -> tuple[bytes, Catalogue]:
    """What is to be kept, and the catalogue in it."""
    try:
        value = orjson.loads(raw)
        if is_models_dev(value):
            value = convert(value, shipped(), today.isoformat())
        catalogue = from_value(value, url)
    except orjson.JSONDecodeError as exc:
        raise Refused("catalogue_invalid", f"{url}: not valid JSON: {exc}.") from exc
    except DecodeError as exc:
        raise Refused("catalogue_invalid", str(exc)) from exc
    known = [theirs for theirs in catalogue.providers() if shipped().provider(theirs.id)]
    if not any(provider.models for provider in known):
        raise Refused("catalogue_invalid", f"{url}: no provider in it that this version knows.")
    # A date far ahead would keep every later list from counting.
    if catalogue.date > (today + datetime.timedelta(days=1)).isoformat():
        raise Refused("catalogue_invalid", f"{url}: $.date: expected a day that has come.")
    return orjson.dumps(value), catalogue


def _write(copy: Path, text: bytes) -> None:
    beside = copy.with_name(f"{copy.name}.new")  # one name: what a crash leaves is overwritten
    with beside.open("wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, copy)
    with contextlib.suppress(OSError):  # some file systems cannot sync a directory
        descriptor = os.open(copy.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _summary(url: str, before: Catalogue, after: Catalogue) -> Refreshed:
    old, new = _by_name(before), _by_name(after)
    lists = {
        "added": [name for name in new if name not in old],
        "removed": [name for name in old if name not in new],
        "changed": [name for name in new if name in old and old[name] != new[name]],
    }
    return Refreshed(
        url=url,
        date=after.date,
        providers=sum(bool(provider.models) for provider in after.providers()),
        models=len(new),
        is_new=after.date != before.date or any(lists.values()),
        added=tuple(lists["added"][: limits.CATALOGUE_CHANGES]),
        removed=tuple(lists["removed"][: limits.CATALOGUE_CHANGES]),
        changed=tuple(lists["changed"][: limits.CATALOGUE_CHANGES]),
        counts={name: len(names) for name, names in lists.items()},
    )


def _by_name(catalogue: Catalogue) -> dict[str, ModelInfo]:
    return {f"{model.provider}/{model.model}": model for model in catalogue.models()}
