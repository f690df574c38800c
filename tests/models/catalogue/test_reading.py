"""Reading a catalogue file: what is wrong in it is said with file, path and expectation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crush_trio import limits
from crush_trio.models.catalogue import load
from crush_trio.models.catalogue.load import shipped
from crush_trio.models.catalogue.reading import is_safe, read
from crush_trio.protocol.errors import DecodeError
from tests.models.catalogue.kit import file, raw


def _provider(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda value: value["providers"][0].update(changes)


def _model(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda value: value["providers"][0]["models"][0].update(changes)


WRONG: list[tuple[Callable[[dict[str, Any]], None], str]] = [
    (lambda value: value.update(format=2), "$.format: expected 1."),
    (lambda value: value.update(format=True), "$.format: expected 1."),
    (lambda value: value.pop("date"), "$.date: expected a string that is not empty, found nothing"),
    (lambda value: value.update(date="20270131"), "$.date: expected a day as YYYY-MM-DD."),
    (lambda value: value.update(date="2027-02-31"), "$.date: expected a day as YYYY-MM-DD."),
    (lambda value: value.update(more=1), '$: expected no key "more".'),
    (lambda value: value.update(sources=[1]), "$.sources: expected a list of strings."),
    (lambda value: value.update(providers={}), "$.providers: expected a list."),
    (lambda value: value.update(providers=[7]), "$.providers[0]: expected an object."),
    (lambda value: value["providers"].append(value["providers"][0]), "the id 'openai' once"),
    (_provider(id=""), "$.providers[0].id: expected a string that is not empty."),
    (_provider(id="a/b"), "$.providers[0].id: expected a name without a slash."),
    (_provider(dialect="telnet"), "$.providers[0].dialect: expected one of openai-chat, "),
    (_provider(base_url="http://api.openai.com"), "$.providers[0].base_url: expected an https"),
    (_provider(base_url="https://["), "$.providers[0].base_url: expected an https"),
    (_provider(base_url="https://a.example", is_local=True), "http on loopback if is_local"),
    (_provider(default_large="none"), "$.providers[0].default_large: expected the id of one of"),
    (
        _provider(models=[{"id": "a"}, {"id": "a"}]),
        "$.providers[0].models: expected the id 'a' once",
    ),
    (_model(context_window=-1), "$.providers[0].models[0].context_window: expected a whole number"),
    (_model(context_window=1.5), "models[0].context_window: expected a whole number from 0 to"),
    (_model(context_window=True), "models[0].context_window: expected a whole number from 0 to"),
    (_model(max_output_tokens=1001), "max_output_tokens: expected at most the context window."),
    (
        _model(cost_per_1m_in="1"),
        "models[0].cost_per_1m_in: expected a number from 0 to 100000, or",
    ),
    (_model(cost_per_1m_out=1e9), "models[0].cost_per_1m_out: expected a number from 0 to"),
    (_model(supports_tools=1), "models[0].supports_tools: expected true, false or null."),
    (_model(reasoning_levels="low"), "models[0].reasoning_levels: expected a list of strings."),
    (
        _model(default_reasoning_effort="low"),
        "default_reasoning_effort: expected a reasoning level",
    ),
    (_model(colour="red"), '$.providers[0].models[0]: expected no key "colour".'),
]


@pytest.mark.parametrize(("spoil", "said"), WRONG, ids=[said for _, said in WRONG])
def test_a_mistake_is_named_with_file_path_and_expectation(
    spoil: Callable[[dict[str, Any]], None], said: str
) -> None:
    value = file()
    assert read(raw(value), "here").date == value["date"]
    spoil(value)
    with pytest.raises(DecodeError) as caught:
        read(raw(value), "/data/catalogue.json")
    assert str(caught.value).startswith("/data/catalogue.json: $")
    assert said in str(caught.value)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b'{"format": NaN}', b"\xff\xfe"])
def test_bytes_that_are_no_catalogue_are_refused(text: bytes) -> None:
    with pytest.raises(DecodeError, match=r"^here: "):
        read(text, "here")


def test_of_many_mistakes_the_first_are_named_and_the_rest_counted() -> None:
    value = file()
    value["providers"] = [None] * (limits.DECODE_PLACES_MAX + 3)
    with pytest.raises(DecodeError, match=r"providers\[0\].* There are 3 more mistakes\.$"):
        read(raw(value), "here")


def test_what_a_model_leaves_out_is_unknown_rather_than_free() -> None:
    model = read(raw(file()), "here").model("openai", "large-1")
    assert model is not None
    assert (model.cost_per_1m_in, model.supports_tools, model.supports_attachments) == (None,) * 3
    assert (model.name, model.reasoning_levels) == ("large-1", ())


@pytest.mark.parametrize(
    ("url", "is_local", "expected"),
    [
        ("https://a.example/v1", False, True),
        ("http://a.example/v1", False, False),
        ("http://127.0.0.1:1/v1", False, False),
        ("http://127.0.0.1:1/v1", True, True),
        ("http://[::1]:8080", True, True),
        ("http://10.0.0.1:1", True, False),
        ("file:///etc/passwd", False, False),
        ("https://", False, False),
        ("https://a.example:99999", False, False),
    ],
)
def test_an_address_is_https_or_on_loopback(url: str, is_local: bool, expected: bool) -> None:
    assert is_safe(url, is_local=is_local) is expected


# --- the refreshed copy ---------------------------------------------------------------------


def test_a_newer_copy_brings_models_but_never_says_where_a_key_goes(tmp_path: Path) -> None:
    value = file()
    value["providers"][0]["base_url"] = "https://evil.example/v1"
    value["providers"][0]["key_variables"] = ["ANTHROPIC_API_KEY"]
    value["providers"].append({**file()["providers"][0], "id": "evil"})
    copy = tmp_path / "catalogue.json"
    copy.write_bytes(raw(value))
    found = load(copy)
    provider, mine = found.by_id["openai"], shipped().by_id["openai"]
    assert (provider.base_url, provider.key_variables) == (mine.base_url, mine.key_variables)
    assert found.provider("evil") is None
    assert [model.model for model in provider.models] == ["large-1", "small-1"]
    assert (provider.default_large, provider.default_small) == ("large-1", "small-1")
    assert found.by_id["anthropic"] == shipped().by_id["anthropic"]
    assert (found.date, found.notices) == ("2027-01-31", ())


def test_a_default_that_a_newer_copy_no_longer_has_is_none(tmp_path: Path) -> None:
    value = file()
    value["providers"][0].update(default_large="", default_small="")
    copy = tmp_path / "catalogue.json"
    copy.write_bytes(raw(value))
    assert load(copy).by_id["openai"].default_large == ""


@pytest.mark.parametrize("date", ["2020-01-01", shipped().date])
def test_a_copy_that_is_not_newer_does_not_count(date: str, tmp_path: Path) -> None:
    copy = tmp_path / "catalogue.json"
    copy.write_bytes(raw({**file(), "date": date}))
    assert load(copy) is shipped()


def test_a_broken_copy_does_not_count_and_says_so(tmp_path: Path) -> None:
    copy = tmp_path / "catalogue.json"
    copy.write_bytes(b'{"format": 1')
    (notice,) = load(copy).notices
    assert notice.startswith(
        f"The refreshed list of models does not count, the shipped one does: {copy}: "
    )
    assert load(copy).by_id == shipped().by_id


def test_a_copy_that_is_too_large_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CATALOGUE_BYTES", 100)
    copy = tmp_path / "catalogue.json"
    copy.write_bytes(raw(file()))
    assert "larger than 100 bytes" in load(copy).notices[0]


def test_a_copy_is_read_again_only_when_it_changes(tmp_path: Path) -> None:
    copy = tmp_path / "catalogue.json"
    assert load(copy) is shipped()
    copy.write_bytes(raw(file()))
    first = load(copy)
    assert first is not shipped()
    assert load(copy) is first
    copy.write_bytes(raw({**file(), "date": "2027-02-01", "about": "other"}))
    assert load(copy).date == "2027-02-01"
    copy.unlink()
    assert load(copy) is shipped()
