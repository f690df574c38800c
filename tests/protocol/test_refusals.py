"""What is not what was agreed is refused, and the sentence names each wrong place, path first."""

from __future__ import annotations

from typing import Any, get_args, get_origin

import attrs
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crush_trio.limits import DECODE_PLACES_MAX, JSON_DEPTH_MAX
from crush_trio.protocol import codec
from crush_trio.protocol import messages as m
from crush_trio.protocol.converter import converter, wire_name
from crush_trio.protocol.errors import DecodeError
from crush_trio.protocol.events import Hello, Retry
from crush_trio.protocol.requests import EditRequest, PromptRequest
from crush_trio.protocol.runs import Limits, RunRecord
from crush_trio.protocol.sessions import Session
from tests.protocol.values import CLASSES, instances


def refusal(raw: bytes | str, cls: Any) -> str:
    with pytest.raises(DecodeError) as caught:
        codec.decode(raw, cls)
    return str(caught.value)


BUSY = "expected one of enqueue, steer, interrupt, reject"
KNOWN_LIMITS = (
    "timeout_s, idle_timeout_s, max_steps, max_tool_calls, max_output_tokens, max_cost_usd"
)
BODIES = [
    (b"[]", "the body must be a JSON object, not list"),
    (b'"{}"', "the body must be a JSON object, not str"),
    (b"null", "the body must be a JSON object, not null"),
    (b'{"prompt":1}', "$.prompt: expected str, not int"),
    (b'{"prompt":["a"]}', "$.prompt: expected str, not list"),
    (b'{"prompt":{}}', "$.prompt: expected str, not object"),
    (b'{"attachments":"abc"}', "$.attachments: expected list, not str"),
    (b'{"attachments":{}}', "$.attachments: expected list, not object"),
    (b'{"attachments":[1]}', "$.attachments[0]: expected object, not int"),
    (b'{"attachments":[[]]}', "$.attachments[0]: expected object, not list"),
    (b'{"attachments":[{"content":""},{}]}', "$.attachments[1]: missing key content"),
    (b'{"attachments":[{"content":null}]}', "$.attachments[0].content: expected str, not null"),
    (b'{"allow_tools":"bash"}', "$.allow_tools: expected list, not str"),
    (b'{"allow_tools":["bash",true]}', "$.allow_tools[1]: expected str, not bool"),
    (b'{"limits":"abc"}', "$.limits: expected object, not str"),
    (b'{"limits":[]}', "$.limits: expected object, not list"),
    (b'{"limits":{"max_steps":"12"}}', "$.limits.max_steps: expected int, not str"),
    (b'{"limits":{"max_steps":true}}', "$.limits.max_steps: expected int, not bool"),
    (b'{"limits":{"max_steps":1.0}}', "$.limits.max_steps: expected int, not float"),
    (b'{"limits":{"max_steps":-1}}', "$.limits.max_steps: expected 0 or more, not -1"),
    (
        b'{"limits":{"max_steps":9223372036854775808}}',
        "$.limits.max_steps: expected int of at most 64 bits",
    ),
    (b'{"limits":{"timeout_s":"5"}}', "$.limits.timeout_s: expected float, not str"),
    (b'{"limits":{"timeout_s":false}}', "$.limits.timeout_s: expected float, not bool"),
    (b'{"limits":{"steps":1}}', f"$.limits.steps: unknown key; known are {KNOWN_LIMITS}"),
    (b'{"limits":{"a b":1}}', f"$.limits['a b']: unknown key; known are {KNOWN_LIMITS}"),
    (b'{"if_busy":"wait"}', f"$.if_busy: {BUSY}, not 'wait'"),
    (b'{"if_busy":1}', f"$.if_busy: {BUSY}, not int"),
    (
        b'{"permission_mode":"yes"}',
        "$.permission_mode: expected one of ask, deny, allow, not 'yes'",
    ),
    (
        b'{"on_disconnect":"\\n"}',
        "$.on_disconnect: expected one of continue, cancel, not '\\n'",
    ),
    (
        b'{"prompt":1,"session_id":2}',
        "$.session_id: expected str, not int; $.prompt: expected str, not int",
    ),
]


@pytest.mark.parametrize(("body", "sentence"), BODIES)
def test_a_body_is_refused_with_the_sentence(body: bytes, sentence: str) -> None:
    with pytest.raises(DecodeError) as caught:
        codec.decode_body(body, PromptRequest)
    assert str(caught.value) == sentence


NOT_JSON: list[bytes | str] = [
    b"{",
    b"nul",
    b"NaN",
    b'{"a":Infinity}',
    b"1e999",
    b'"\\ud800"',
    b'"\xed\xa0\x80"',
    b"\xff",
    b"\xef\xbb\xbf{}",
    b"{} {}",
    b"{'a':1}",
    b"[" * 5_000,
    "\ud800",
    "",
]


@pytest.mark.parametrize("raw", NOT_JSON)
def test_text_that_is_not_json_is_refused_with_the_position(raw: bytes | str) -> None:
    assert refusal(raw, Session).startswith("not valid JSON: ")


TEXT_DATA = '{"type":"text","data":{"text":"a"}}'
EVENT = '{"type":"message","payload":{"type":"created","payload":%s}}'
FRAMES = [
    ("{}", "a frame must be a JSON array, not object"),
    ("null", "a frame must be a JSON array, not null"),
    ("[1]", "$[0]: expected object, not int"),
    ('[{"type":"ping"},{}]', "$[1]: expected an object with a string type"),
    ('[{"type":7}]', "$[0]: expected an object with a string type"),
    ('[{"type":"hello","version":"1","server_id":"a","epoch":"b"}]', "$[0]: missing key seq"),
    ('[{"type":"replayed","seq":"4"}]', "$[0].seq: expected int, not str"),
    ('[{"type":"ping","seq":1.5}]', "$[0].seq: expected int, not float"),
    ('[{"type":"session"}]', "$[0]: missing key payload"),
    ('[{"type":"session","payload":[]}]', "$[0].payload: expected object, not list"),
    ('[{"type":"session","payload":{"type":"x"}}]', "$[0].payload: missing key payload"),
    (
        '[{"type":"session","payload":{"payload":{},"type":3}}]',
        "$[0].payload.type: expected str, not int",
    ),
    (
        '[{"type":"session","payload":{"payload":{},"type":"created"}}]',
        "$[0].payload.payload: missing key id",
    ),
    (
        '[{"type":"lsp_event","payload":{"payload":[],"type":"created"}}]',
        "$[0].payload.payload: expected object, not list",
    ),
    (
        '[{"type":"config_changed","seq":true,"workspace_id":3,"truncated":{"a":1},'
        '"payload":{"payload":{"workspace_id":"w"},"type":"updated"}}]',
        "$[0].workspace_id: expected str, not int; $[0].seq: expected int, not bool; "
        "$[0].truncated.a: expected str, not int",
    ),
    (
        "[" + EVENT % '{"id":"m","role":"user","session_id":"s"}' + "]",
        "$[0].payload.payload: missing key parts",
    ),
    (
        "[" + EVENT % '{"id":"m","role":"user","session_id":"s","parts":null}' + "]",
        "$[0].payload.payload.parts: expected list, not null",
    ),
]


@pytest.mark.parametrize(("raw", "sentence"), FRAMES)
def test_a_frame_is_refused_with_the_sentence(raw: str, sentence: str) -> None:
    with pytest.raises(DecodeError) as caught:
        codec.decode_frames(raw)
    assert str(caught.value) == sentence


PARTS = [
    ("4", ": expected object, not int"),
    ("[]", ": expected object, not list"),
    ("{}", ": missing key type"),
    ('{"type":"text"}', ": missing key data"),
    ('{"type":null,"data":{}}', ".type: expected str, not null"),
    ('{"type":"text","data":"a"}', ".data: expected object, not str"),
    ('{"type":"future","data":[]}', ".data: expected object, not list"),
    ('{"type":"text","data":{}}', ".data: missing key text"),
    ('{"type":"text","data":{"text":1}}', ".data.text: expected str, not int"),
    (
        '{"type":"binary","data":{"Path":1,"MIMEType":"a","Data":"b"}}',
        ".data.Path: expected str, not int",
    ),
    ('{"type":"binary","data":{"path":"a","MIMEType":"a","Data":"b"}}', ".data: missing key Path"),
    (
        '{"type":"tool_result","data":{"tool_call_id":"a","name":"b","content":"c","is_error":0}}',
        ".data.is_error: expected bool, not int",
    ),
]


@pytest.mark.parametrize(("part", "sentence"), PARTS)
def test_a_part_is_refused_with_the_sentence(part: str, sentence: str) -> None:
    raw = f'{{"id":"m","role":"user","session_id":"s","parts":[{TEXT_DATA},{part}]}}'
    assert refusal(raw, m.Message) == f"$.parts[1]{sentence}"


def test_an_unknown_state_is_refused_with_the_known_ones() -> None:
    raw = (
        '{"id":"r","workspace_id":"w","session_id":"s","prompt":"p","accept_seq":1,'
        '"created_at_ms":1,"state":"dreaming","outcome":[]}'
    )
    assert refusal(raw, RunRecord) == (
        "$.state: expected one of queued, running, finished, not 'dreaming'; $.outcome: expected "
        "one of completed, failed, cancelled, limited, denied, steered, lost, not list"
    )


def test_a_negative_position_is_refused_and_its_absence_is_not() -> None:
    assert refusal('{"position":-1}', EditRequest) == "$.position: expected 0 or more, not -1"
    assert codec.decode('{"position":null}', EditRequest) == EditRequest()


def test_an_int_is_taken_for_a_float_and_becomes_one() -> None:
    raw = '{"run_id":"r","attempt":1,"max_attempts":2,"delay_s":3,"cause":"busy"}'
    assert repr(codec.decode(raw, Retry).delay_s) == "3.0"


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 10**400])
def test_a_number_without_a_float_is_refused(number: Any) -> None:
    with pytest.raises(DecodeError, match=r"^\$\.timeout_s: expected a finite float$"):
        codec.from_json({"timeout_s": number}, Limits)


def test_only_null_is_null() -> None:
    assert codec.from_json(None, type(None)) is None
    with pytest.raises(DecodeError, match=r"^\$: expected null, not int$"):
        codec.from_json(0, type(None))


def test_an_unusable_class_is_a_decode_error_too() -> None:
    with pytest.raises(DecodeError, match=r"^\$: cannot be read \(TypeError\)$"):
        codec.from_json(1, int | str)  # type: ignore[arg-type]  # what nobody should ask for


def test_the_last_of_two_equal_keys_counts() -> None:
    assert codec.decode('{"prompt":1,"prompt":"b"}', PromptRequest).prompt == "b"


def _nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def test_nesting_is_taken_up_to_the_limit_and_refused_beyond() -> None:
    sentence = f"nested more than {JSON_DEPTH_MAX} deep"
    assert codec.parse(_nested(JSON_DEPTH_MAX))
    assert codec.parse(b"[" * JSON_DEPTH_MAX + b"1" + b"]" * JSON_DEPTH_MAX)
    assert codec.parse(b'{"a":' + _nested(JSON_DEPTH_MAX - 1) + b"}")
    for raw in (_nested(JSON_DEPTH_MAX + 1), b'{"a":' + _nested(JSON_DEPTH_MAX) + b"}"):
        with pytest.raises(DecodeError, match=sentence):
            codec.parse(raw)
        with pytest.raises(DecodeError, match=sentence):
            codec.from_json(orjson.loads(raw), PromptRequest)
        with pytest.raises(DecodeError, match=sentence):
            codec.frame_from_json(orjson.loads(raw))


@pytest.mark.parametrize(
    "raw",
    [
        '{"attachments":[' + ",".join(["1"] * 500) + "]}",
        '{"limits":{' + ",".join(f'"k{n}":1' for n in range(500)) + "}}",
    ],
)
def test_a_flood_of_mistakes_is_one_short_sentence(raw: str) -> None:
    sentence = refusal(raw, PromptRequest)
    assert sentence.endswith("; and more")
    assert sentence.count("$.") == DECODE_PLACES_MAX


def test_a_flood_of_mistakes_in_a_mapping_is_one_short_sentence() -> None:
    raw = orjson.dumps({f"k{n}": n for n in range(500)})
    assert refusal(raw, dict[str, str]).count("$.") == DECODE_PLACES_MAX
    assert refusal(raw, dict[str, str]).endswith("; and more")


def test_long_or_odd_keys_and_values_are_quoted_short_and_on_one_line() -> None:
    sentence = refusal(orjson.dumps({"x" * 5_000: 1, "a\nb": 2}), dict[str, str])
    assert len(sentence) < 200
    assert "\n" not in sentence
    long = refusal(orjson.dumps({"if_busy": "y" * 5_000}), PromptRequest)
    assert long.endswith("yyy…'")
    assert len(long) < 200


def _accepted(target: Any) -> set[type]:
    """JSON types an annotation takes; all of them for ``Any``."""
    target = getattr(target, "__supertype__", target)
    if target is Any:
        return {type(None), bool, int, float, str, list, dict}
    if get_origin(target) is tuple:
        return {list}
    if get_origin(target) is dict or attrs.has(target):
        return {dict}
    if get_args(target):
        return set().union(*(_accepted(member) for member in get_args(target)))
    if target is float:
        return {int, float}
    return {str} if issubclass(target, str) else {target}


ONE_OF_EACH: list[Any] = [None, True, 1, 1.5, "1", [], {}]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
@settings(max_examples=2)
@given(data=st.data())
def test_every_field_of_every_class_refuses_every_other_type_at_its_path(
    cls: type[Any], data: st.DataObject
) -> None:
    good = codec.to_json(data.draw(instances(cls)))
    for field in attrs.fields(attrs.resolve_types(cls)):
        key = wire_name(cls, field.name)
        for wrong in ONE_OF_EACH:
            if type(wrong) in _accepted(field.type):
                continue
            with pytest.raises(DecodeError) as caught:
                codec.from_json({**good, key: wrong}, cls)
            assert str(caught.value).startswith(f"$.{key}: expected ")


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("wrong", [None, True, 1, 1.5, "text", [], [[]]])
def test_no_class_is_made_of_anything_but_an_object(cls: type[Any], wrong: Any) -> None:
    with pytest.raises(DecodeError, match=r"^\$: expected object, not "):
        codec.from_json(wrong, cls)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_required_key_that_is_missing_is_named(cls: type[Any]) -> None:
    required = [
        wire_name(cls, field.name) for field in attrs.fields(cls) if field.default is attrs.NOTHING
    ]
    if not required:
        assert type(codec.from_json({}, cls)) is cls
        return
    with pytest.raises(DecodeError) as caught:
        codec.from_json({}, cls)
    named = [f"$: missing key {key}" for key in required]
    if len(named) > DECODE_PLACES_MAX:
        named[DECODE_PLACES_MAX:] = ["and more"]
    assert str(caught.value) == "; ".join(named)


def test_unknown_keys_of_an_answer_are_ignored() -> None:
    raw = '{"version":"1","server_id":"a","epoch":"b","seq":4,"mood":"good"}'
    assert codec.decode(raw, Hello) == Hello("1", "a", "b", 4)


def test_a_type_the_converter_cannot_tell_apart_is_our_bug_at_once() -> None:
    with pytest.raises(TypeError, match="cannot tell"):
        converter.get_structure_hook(m.TextPart | m.FinishPart)
