"""Refreshing the catalogue: what came is checked, and whatever is wrong leaves the old one."""

from __future__ import annotations

import datetime
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from crush_trio import limits
from crush_trio.http.connections import Connections
from crush_trio.models.catalogue import FILE, load
from crush_trio.models.catalogue.load import shipped
from crush_trio.models.catalogue.refresh import CATALOGUE_URL, Refresher, check_url, replace
from crush_trio.protocol.errors import Refused
from tests.models.catalogue.kit import file, raw
from tests.models.network.provider import Exchange, fake_provider, whole

TODAY = datetime.date(2027, 1, 31)
URL = "https://models.example/catalogue.json"


def _dated(date: str, **model: Any) -> dict[str, Any]:
    value = {**file(), "date": date}
    value["providers"][0]["models"][0].update(model)
    return value


@asynccontextmanager
async def _refresher(
    tmp_path: Path, answer: bytes, environ: dict[str, str] | None = None
) -> AsyncIterator[tuple[Refresher, str, list[Exchange]]]:
    async def say(exchange: Exchange) -> None:
        await exchange.send(answer)
        await exchange.hang_up()

    async with fake_provider(say) as server, Connections(environ=environ or {}) as connections:
        url = f"{server.url}/catalogue.json"
        yield Refresher(tmp_path / FILE, connections, lambda: TODAY), url, server.exchanges


# --- over the network -----------------------------------------------------------------------


async def test_a_newer_catalogue_is_fetched_and_counts_from_then_on(tmp_path: Path) -> None:
    async with _refresher(tmp_path, whole(200, raw(_dated("2027-01-30")))) as (
        refresher,
        url,
        asked,
    ):
        found = await refresher.refresh(url)
    assert (found.is_new, found.date, found.url) == (True, "2027-01-30", url)
    assert found.models == len(load(tmp_path / FILE).models())
    assert "openai/large-1" in found.added
    assert "openai/gpt-5" in found.removed
    assert load(tmp_path / FILE).model("openai", "large-1") is not None
    assert asked[0].headers["accept"] == "application/json"


async def test_a_list_of_models_dev_is_taken_too_and_dated_today(tmp_path: Path) -> None:
    model = {
        "tool_call": True,
        "limit": {"context": 9, "output": 3},
        "modalities": {"output": ["text"]},
    }
    value = {"openai": {"models": {"gpt-99": model}}, "other": {"models": {}}}
    async with _refresher(tmp_path, whole(200, raw(value))) as (refresher, url, _):
        found = await refresher.refresh(url)
    assert found.date == TODAY.isoformat()
    openai = load(tmp_path / FILE).by_id["openai"]
    assert [model.model for model in openai.models] == ["gpt-99"]
    assert openai.base_url == "https://api.openai.com/v1"


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (whole(404, b"no"), "catalogue_unreachable", "answered 404 instead of a list of models"),
        (whole(302, b"", location="http://x/"), "catalogue_unreachable", "answered 302"),
        (b"SSH-2.0\r\n\r\n", "catalogue_unreachable", ""),
        (b"", "catalogue_unreachable", ""),
        (whole(200, b"x" * 5000), "catalogue_unreachable", "exceeds 4000 bytes"),
        (whole(200, b"<html>"), "catalogue_invalid", "not valid JSON"),
        (whole(200, b"{}"), "catalogue_invalid", "$.format: expected 1, found nothing"),
        (whole(200, raw([1])), "catalogue_invalid", "$: expected an object"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_is_no_catalogue_is_refused_and_the_old_one_stays(
    answer: bytes, code: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CATALOGUE_BYTES", 4000)
    (tmp_path / FILE).write_bytes(raw(_dated("2027-01-01")))
    before = load(tmp_path / FILE)
    async with _refresher(tmp_path, answer) as (refresher, url, _):
        with pytest.raises(Refused) as caught:
            await refresher.refresh(url)
    assert (caught.value.code, caught.value.status) == (code, 502)
    assert said in caught.value.message
    assert caught.value.retryable is (code == "catalogue_unreachable")
    assert load(tmp_path / FILE) is before
    assert os.listdir(tmp_path) == [FILE]


async def test_a_proxy_that_refuses_is_the_reason_that_is_given(tmp_path: Path) -> None:
    async with _refresher(tmp_path, whole(403, b"")) as (_, url, _):
        proxy = {"https_proxy": url.removesuffix("/catalogue.json")}
        async with Connections(environ=proxy) as connections:
            with pytest.raises(Refused, match=r"(?i)proxy") as caught:
                await Refresher(tmp_path / FILE, connections).refresh(URL)
    assert caught.value.code == "catalogue_unreachable"


@pytest.mark.parametrize(
    "url", ["http://models.example/x", "file:///etc/passwd", "", "https://", "models.example", "x:"]
)
async def test_an_address_without_tls_is_refused_before_anything_is_sent(
    url: str, tmp_path: Path
) -> None:
    async with Connections(environ={}) as connections:
        with pytest.raises(Refused, match=r"must begin with https://") as caught:
            await Refresher(tmp_path / FILE, connections).refresh(url)
    assert caught.value.code == "bad_request"


def test_the_usual_address_is_one() -> None:
    for url in (CATALOGUE_URL, "http://127.0.0.1:1/x", "http://[::1]:1/x"):
        check_url(url)
    with pytest.raises(Refused):
        check_url("http://127.0.0.2:1/x")


# --- what counts ----------------------------------------------------------------------------


def test_a_catalogue_that_is_not_newer_changes_nothing_and_says_so(tmp_path: Path) -> None:
    copy = tmp_path / FILE
    for date in ("2020-01-01", shipped().date):
        found = replace(copy, raw(_dated(date)), URL, TODAY)
        assert (found.is_new, found.date, found.added) == (False, shipped().date, ())
        assert not copy.exists()
    assert replace(copy, raw(_dated("2027-01-30")), URL, TODAY).is_new
    older = replace(copy, raw(_dated("2027-01-29", name="other")), URL, TODAY)
    assert (older.is_new, older.date) == (False, "2027-01-30")


def test_the_same_catalogue_again_is_not_new_another_of_the_same_day_is(tmp_path: Path) -> None:
    copy = tmp_path / FILE
    value = _dated("2027-01-30")
    assert replace(copy, raw(value), URL, TODAY).is_new
    assert not replace(copy, raw(value), URL, TODAY).is_new
    again = replace(copy, raw(_dated("2027-01-30", cost_per_1m_in=7)), URL, TODAY)
    assert (again.is_new, again.changed, again.added) == (True, ("openai/large-1",), ())
    assert again.counts == {"added": 0, "removed": 0, "changed": 1}


def test_the_changes_that_are_named_are_bounded_and_counted(tmp_path: Path) -> None:
    value = _dated("2027-01-30")
    value["providers"][0]["models"] += [{"id": f"m{number}"} for number in range(100)]
    found = replace(tmp_path / FILE, raw(value), URL, TODAY)
    assert (len(found.added), found.counts["added"]) == (limits.CATALOGUE_CHANGES, 102)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda value: value.update(date="2027-02-02"), "expected a day that has come"),
        (lambda value: value.update(providers=[]), "no provider in it that this version knows"),
        (lambda value: value["providers"][0].update(id="stranger"), "that this version knows"),
        (lambda value: value["providers"][0].update(models=[]), "expected the id of one of its"),
    ],
)
def test_a_catalogue_that_could_do_harm_is_refused(
    change: Callable[[dict[str, Any]], None], said: str, tmp_path: Path
) -> None:
    value = _dated("2027-01-30")
    change(value)
    with pytest.raises(Refused, match=said) as caught:
        replace(tmp_path / FILE, raw(value), URL, TODAY)
    assert caught.value.code == "catalogue_invalid"
    assert os.listdir(tmp_path) == []


# --- the disk -------------------------------------------------------------------------------


def test_a_power_cut_before_the_new_file_is_in_place_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / FILE
    replace(copy, raw(_dated("2027-01-29")), URL, TODAY)

    class PowerCutError(BaseException):
        """Nothing after it happens."""

    def cut(*_: object) -> None:
        raise PowerCutError

    for name in ("fsync", "replace"):
        with monkeypatch.context() as broken:
            broken.setattr(os, name, cut)
            with pytest.raises(PowerCutError):
                replace(copy, raw(_dated("2027-01-30")), URL, TODAY)
        assert load(copy).date == "2027-01-29"
    left = copy.with_name(f"{FILE}.new")
    left.write_bytes(b'{"format": 1, "da')  # as far as it had come
    assert replace(copy, raw(_dated("2027-01-30")), URL, TODAY).is_new
    assert load(copy).date == "2027-01-30"
    assert os.listdir(tmp_path) == [FILE]


def test_the_new_file_is_synced_before_it_takes_the_old_ones_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, rename = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        done.append("sync")
        sync(descriptor)

    def renamed(old: Path, new: Path) -> None:
        done.append("rename")
        rename(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    replace(tmp_path / FILE, raw(_dated("2027-01-30")), URL, TODAY)
    assert done == ["sync", "rename", "sync"]


def test_a_disk_that_takes_nothing_is_named(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"cannot be kept in .*No such file") as caught:
        replace(tmp_path / "gone" / FILE, raw(_dated("2027-01-30")), URL, TODAY)
    assert caught.value.code == "catalogue_unwritable"
