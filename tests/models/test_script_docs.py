"""The page about scripts shows scripts that load and play, and leaves no key out."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import pytest
import trio

from crush_trio.agent.ports import ModelError, ModelEvent, StreamReset, ToolCallStart
from crush_trio.models import script_schema as s
from crush_trio.models.script import ScriptModel
from tests.models.kit import PATH, play, request, text_of, user

PAGE = (Path(__file__).parents[2] / "docs" / "script-models.md").read_text("utf-8")
EXAMPLES = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)


def test_each_example_on_the_page_is_a_script() -> None:
    scripts = [s.parse_script(example) for example in EXAMPLES]
    assert [len(script.steps) for script in scripts] == [4, 2, 1]


async def test_the_example_does_what_the_page_says(autojump_clock: trio.testing.MockClock) -> None:
    model = ScriptModel(s.parse_script(EXAMPLES[0]), PATH)
    events, end = await play(model, request(user("What is in here?")))
    assert [e.name for e in events if isinstance(e, ToolCallStart)] == ["ls", "view"]
    assert (text_of(events), end.reason) == ("Let me look. ", "tool_use")
    events, end = await play(model, request(user("What is in here?"), step=2))
    assert (text_of(events), end.reason) == ("It is a project with a README.", "end_turn")
    start = trio.current_time()
    events, _ = await play(model, request(user("be slow")))
    assert len(events) == 1000
    assert trio.current_time() - start == pytest.approx(999 * 0.005)
    broken: list[ModelEvent] = []
    with pytest.raises(ModelError, match="broke off"):
        await model.stream(request(user("break")), broken.append)
    assert [e.cause for e in broken if isinstance(e, StreamReset)] == ["status 529"]


@pytest.mark.parametrize(
    "cls",
    [s.Script, s.ModelFacts, s.When, s.UsageNumbers, s.Step, s.Title, *s.ACTIONS.values()],
    ids=lambda cls: cls.__name__,
)
def test_the_page_names_every_key(cls: type[attrs.AttrsInstance]) -> None:
    missing = [field.name for field in attrs.fields(cls) if f"`{field.name}`" not in PAGE]
    assert missing == []
