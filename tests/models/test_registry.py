"""A model's name leads to a model, or to one sentence that says what exists."""

from __future__ import annotations

from pathlib import Path

import pytest

from crush_trio.models.registry import DEFAULT_MODEL, available, default, is_built_in, resolve
from crush_trio.models.scout.model import SCOUT
from crush_trio.protocol.errors import Refused
from tests.models.kit import play, request, text_of


@pytest.mark.parametrize("name", ["offline", "offline/scout", DEFAULT_MODEL])
def test_what_is_left_is_the_planner_that_is_no_language_model(name: str) -> None:
    assert is_built_in(name)
    assert resolve(name, allow_script=False).info == default().info == SCOUT
    assert not SCOUT.is_language_model
    assert available() == (SCOUT,)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("offline/other", "provider 'offline' has no model 'other'; there is offline/scout"),
        ("script/a.json", "script file 'a.json' must be an absolute path"),
        ("script//no/such.json", "/no/such.json cannot be read: No such file or directory"),
    ],
)
def test_a_name_that_means_nothing_is_refused_with_what_exists(name: str, sentence: str) -> None:
    with pytest.raises(Refused) as caught:
        resolve(name, allow_script=True)
    assert (caught.value.code, caught.value.status) == ("unknown_model", 400)
    assert caught.value.message.startswith(sentence)
    assert is_built_in(name)
    assert not is_built_in("scripts/a")


async def test_a_script_is_played_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "demo.json"
    path.write_text('{"steps": [{"actions": [{"text": "hi"}]}]}')
    model = resolve(f"script/{path}", allow_script=True)
    assert (model.info.provider, model.info.model) == ("script", str(path))
    events, _ = await play(model, request())
    assert text_of(events) == "hi"


def test_a_broken_script_is_refused_with_file_and_place(tmp_path: Path) -> None:
    path = tmp_path / "demo.json"
    path.write_text('{"steps": [{"actions": [{"txt": "hi"}]}]}')
    with pytest.raises(Refused, match=r"demo\.json is not a script: \$\.steps\[0\]\.actions\[0\]"):
        resolve(f"script/{path}", allow_script=True)


def test_a_script_is_refused_where_scripts_are_not_allowed_before_its_file_is_touched() -> None:
    with pytest.raises(Refused) as caught:
        resolve("script//no/such.json", allow_script=False)
    assert (caught.value.code, caught.value.status) == ("model_not_allowed", 400)
    assert "--allow-script-models" in caught.value.message
