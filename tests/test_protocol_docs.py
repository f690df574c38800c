"""``docs/protocol.md`` against the program: routes, shapes, kinds and codes, in both directions."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any, cast
from unittest.mock import Mock

import attrs
import pytest

from crush_trio.protocol import codec, errors, events, messages, questions, requests, runs, sessions
from crush_trio.server import routes
from crush_trio.server.edge.app_base import create_quart_app
from crush_trio.server.edge.gate import Gate

PAGE = (Path(__file__).parent.parent / "docs" / "protocol.md").read_text("utf-8")
_BLOCK = re.compile(r"^```json (\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_ROUTE = re.compile(r"^\| `([A-Z]+) (/\S*)` \|", re.MULTILINE)
_STATUS_ROW = re.compile(r"^\| ((?:\d{3}(?: · )?)+) \| (.*) \|$", re.MULTILINE)
_NAMES = {
    "workspace_id": "w",
    "session_id": "s",
    "run_id": "r",
    "job_id": "j",
    "client_id": "c",
    "message_id": "m",
    "file_id": "f",
    "output_id": "o",
    "permission_id": "p",
    "grant_id": "g",
}
BLOCKS = [(match[1], match[2]) for match in _BLOCK.finditer(PAGE)]
FRAMES = [text for name, text in BLOCKS if name == "frame"]

REQUESTS = frozenset(
    {
        "CreateWorkspace",
        "CreateSession",
        "PromptRequest",
        "EditRequest",
        "ControlRequest",
        "SubscribeFrame",
        "PermissionGrant",
        "QuestionAnswer",
        "QuestionCancel",
    }
)
"""What clients write; they may leave keys out."""


def _classes(*modules: ModuleType) -> dict[str, type[Any]]:
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if attrs.has(value)
    }


CLASSES = _classes(messages, sessions, runs, events, questions, requests)


def _ids(blocks: list[tuple[str, str]]) -> list[str]:
    seen: Counter[str] = Counter()
    names = []
    for name, _ in blocks:
        seen[name] += 1
        names.append(f"{name}-{seen[name]}")
    return names


@pytest.mark.parametrize(("name", "text"), BLOCKS, ids=_ids(BLOCKS))
def test_each_example_comes_back_from_the_codec_as_it_was(name: str, text: str) -> None:
    written = json.loads(text)
    if name == "frame":
        frames = codec.decode_frames(text)
        assert not [frame for frame in frames if isinstance(frame, events.UnknownFrame)]
        assert [codec.frame_to_json(frame) for frame in frames] == written
    elif name in REQUESTS:
        value, ignored = codec.decode_body(text.encode(), CLASSES[name])
        assert ignored == ()
        assert _restricted(codec.to_json(value), written) == written
    else:
        value = codec.decode(text, CLASSES[name])
        assert codec.to_json(value) == written


def _restricted(whole: Any, to: Any) -> Any:
    """``whole`` with the keys alone that ``to`` has, at every depth."""
    if isinstance(whole, dict) and isinstance(to, dict):
        return {key: _restricted(whole[key], to[key]) for key in to if key in whole}
    if isinstance(whole, list) and isinstance(to, list):
        pairs = zip(whole, to, strict=True)
        return [_restricted(mine, theirs) for mine, theirs in pairs]
    return whole


def test_every_json_block_says_what_it_is() -> None:
    assert len(BLOCKS) == PAGE.count("```json")


def test_the_page_shows_every_body_and_answer() -> None:
    shown = {name for name, _ in BLOCKS}
    parts_of_others = {"Attachment", "PermissionEcho"}
    assert set(_classes(requests)) - shown - parts_of_others - _imported(requests) == set()
    assert {"Receipt", "RunRecord", "CancelReceipt", "Session", "FileVersion"} <= shown


def _imported(module: ModuleType) -> set[str]:
    classes = _classes(module)
    return {name for name, cls in classes.items() if cls.__module__ != module.__name__}


def test_every_kind_has_an_example_or_is_said_not_to_be_sent() -> None:
    shown = {frame.get("type") for text in FRAMES for frame in json.loads(text)}
    [sentence] = re.findall(r"this version sends none of them: (.*?)\.\n", PAGE, re.DOTALL)
    unsent = set(re.findall(r"`(\w+)`", sentence))
    assert shown | unsent == {*events.KINDS, *events.CONTROL_CLASS}
    assert shown & unsent == set()


def test_no_kind_that_is_said_not_to_be_sent_is_emitted_anywhere() -> None:
    [sentence] = re.findall(r"this version sends none of them: (.*?)\.\n", PAGE, re.DOTALL)
    package = Path(errors.__file__).parent.parent
    sources = [
        path.read_text("utf-8")
        for layer in ("host", "store", "journal", "server")
        for path in (package / layer).rglob("*.py")
    ]
    for kind in re.findall(r"`(\w+)`", sentence):
        assert not [text for text in sources if f'"{kind}"' in text], kind


def test_every_error_code_is_listed_with_its_status() -> None:
    listed: dict[str, int] = {}
    for statuses, codes in _STATUS_ROW.findall(PAGE):
        numbers = [int(number) for number in statuses.split(" · ")]
        groups = codes.split(" · ") if len(numbers) > 1 else [codes]
        for number, group in zip(numbers, groups, strict=True):
            listed |= dict.fromkeys(re.findall(r"`(\w+)`", group), number)
    assert listed == errors.STATUS


def _registered() -> Counter[tuple[str, str]]:
    app = create_quart_app(Gate(0))
    for module in pkgutil.iter_modules(routes.__path__):
        file = importlib.import_module(f"{routes.__name__}.{module.name}")
        file.add_routes(app, Mock())
    found: Counter[tuple[str, str]] = Counter()
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<(\w+)>", lambda match: f"{{{_NAMES[match[1]]}}}", rule.rule)
        methods = {"WS"} if rule.websocket else cast("set[str]", rule.methods)
        for method in methods - {"HEAD", "OPTIONS"}:
            found[method, path] += 1
    return found


def test_every_registered_route_is_documented_and_every_documented_one_is_registered() -> None:
    documented = Counter((method, path) for method, path in _ROUTE.findall(PAGE))
    assert documented == _registered()
