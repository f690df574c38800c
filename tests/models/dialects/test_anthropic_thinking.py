"""How each generation of Claude is asked to think, and which thoughts are sent back."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from crush_trio import limits
from crush_trio.models.dialects.anthropic.dialect import DIALECT
from crush_trio.models.dialects.anthropic.thinking import Claude, claude
from crush_trio.models.provider import Access, Choice
from crush_trio.protocol.messages import Message, Part, ReasoningPart, TextPart
from tests.models.dialects.kit import ACCESS, target
from tests.models.dialects.test_anthropic_request import AT, body, call, result, said, turns
from tests.models.kit import request, user

THOUGHT = ReasoningPart("Hm.", "sig")
SENT = {"type": "thinking", "thinking": "Hm.", "signature": "sig"}
DROPS = {"prefix_mismatch_behavior": "drop_block"}
SHOWN = {"type": "adaptive", "display": "summarized"}
BOUND = {**SHOWN, "block_binding": DROPS}


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("claude-3-7-sonnet-20250219", Claude("sonnet", (3, 7))),
        ("claude-3-5-haiku-latest", Claude("haiku", (3, 5))),
        ("claude-sonnet-4-20250514", Claude("sonnet", (4, 0))),
        ("claude-opus-4-1-20250805", Claude("opus", (4, 1))),
        ("claude-haiku-4-5", Claude("haiku", (4, 5))),
        ("anthropic/claude-opus-4.6", Claude("opus", (4, 6))),
        ("anthropic.claude-opus-4-6-v1", Claude("opus", (4, 6))),
        ("claude-sonnet-5", Claude("sonnet", (5, 0))),
        ("claude-fable-5-1", Claude("fable", (5, 1))),
        ("claude-mythos-preview", Claude("mythos", (4, 6))),
        ("kimi-k2-thinking", None),
    ],
)
def test_the_generation_is_read_from_the_name(name: str, found: Claude | None) -> None:
    assert claude(name) == found


def asked(model: str, *, provider: str = "anthropic", quirks: Any = (), **choice: Any) -> Any:
    """The ``thinking`` and the effort of a request, and its beta headers."""
    at = target(
        "anthropic",
        provider=provider,
        model=model,
        choice=Choice(**choice),
        quirks=quirks,
        can_reason=True,
        max_output_tokens=32_000,
    )
    made = DIALECT.call(request(), at, ACCESS)
    effort = made.body.get("output_config", {}).get("effort")
    return made.body.get("thinking"), effort, made.headers.get("anthropic-beta")


INTERLEAVED = "interleaved-thinking-2025-05-14"
BINDING = "thinking-binding-controls-2026-08-01"


def budget(tokens: int) -> dict[str, Any]:
    """A thought of so many tokens."""
    return {"type": "enabled", "budget_tokens": tokens}


@pytest.mark.parametrize(
    ("model", "choice", "expected"),
    [
        ("claude-3-7-sonnet-20250219", {}, (None, None, None)),
        ("claude-3-7-sonnet-20250219", {"think": True}, (budget(10_240), None, None)),
        ("claude-sonnet-4-5", {"think": True}, (budget(10_240), None, INTERLEAVED)),
        ("claude-sonnet-4-5", {"reasoning_effort": "low"}, (budget(4_096), None, INTERLEAVED)),
        ("claude-sonnet-4-5", {"reasoning_effort": "high"}, (budget(16_000), None, INTERLEAVED)),
        ("claude-sonnet-4-5", {"reasoning_effort": "none"}, (None, None, None)),
        ("claude-sonnet-4-5", {"think": True, "max_tokens": 2_000}, (None, None, None)),
        ("kimi-k2", {"think": True}, (budget(10_240), None, None)),
        ("kimi-k2", {}, (None, None, None)),
        ("claude-opus-4-6", {}, (None, None, None)),
        ("claude-opus-4-6", {"think": True}, (SHOWN, None, None)),
        ("claude-opus-4-6", {"reasoning_effort": "xhigh"}, (SHOWN, "high", None)),
        ("claude-opus-4-7", {"reasoning_effort": "xhigh"}, (SHOWN, "xhigh", None)),
        ("claude-opus-4-7", {"think": False}, (None, None, None)),
        ("claude-opus-5", {}, (SHOWN, None, None)),
        ("claude-opus-5", {"think": False}, ({"type": "disabled"}, None, None)),
        ("claude-sonnet-5-5", {"think": False}, ({"type": "between_tools"}, None, None)),
        ("claude-haiku-5-5", {"think": False}, ({"type": "disabled"}, None, None)),
        ("claude-opus-5-5", {}, (BOUND, None, BINDING)),
        ("claude-opus-5-5", {"think": False}, (BOUND, "low", BINDING)),
        ("claude-opus-5-5", {"max_tokens": 40}, (BOUND, "low", BINDING)),
        ("claude-fable-5", {"think": False}, (SHOWN, "low", None)),
        ("claude-fable-5-1", {"reasoning_effort": "minimal"}, (BOUND, "low", BINDING)),
    ],
)  # fmt: skip
def test_each_generation_is_asked_in_its_own_form(
    model: str, choice: dict[str, Any], expected: Any
) -> None:
    assert asked(model, **choice) == expected


def test_beta_fields_are_for_anthropic_itself() -> None:
    assert asked("claude-opus-5-5", provider="gateway") == (SHOWN, None, None)
    assert asked("claude-opus-5-5", quirks=("no_betas",)) == (SHOWN, None, None)
    at = target("anthropic", provider="work", model="claude-opus-5-5", can_reason=True)
    made = DIALECT.call(request(), at, Access("https://api.anthropic.com", "k"))
    assert made.headers["anthropic-beta"] == BINDING


def test_a_model_that_cannot_reason_is_not_asked_to() -> None:
    at = target("anthropic", model="claude-3-5-haiku", choice=Choice(think=True))
    assert "thinking" not in body(at=at)


def test_effort_keeps_to_the_levels_the_catalogue_names() -> None:
    at = target(
        "anthropic",
        model="claude-opus-4-7",
        choice=Choice(reasoning_effort="max"),
        can_reason=True,
        reasoning_levels=("low", "medium"),
    )
    assert body(at=at)["output_config"] == {"effort": "medium"}


def test_thinking_leaves_sampling_out_and_half_of_the_answer_free() -> None:
    choice = Choice(think=True, temperature=0.1, top_k=3, max_tokens=6_000)
    at = target("anthropic", model="claude-sonnet-4-5", choice=choice, can_reason=True)
    sent = body(at=at)
    assert {"temperature", "top_k"}.isdisjoint(sent)
    assert sent["thinking"]["budget_tokens"] == 3_000


def test_a_nearly_full_window_leaves_more_than_the_budget() -> None:
    at = target(
        "anthropic",
        model="claude-sonnet-4-5",
        choice=Choice(reasoning_effort="high"),
        can_reason=True,
        context_window=200_000,
        max_output_tokens=64_000,
    )
    sent = body(user("x" * 590_000), at=at)
    assert sent["max_tokens"] == sent["thinking"]["budget_tokens"] + limits.ANSWER_TOKENS_MIN


@pytest.mark.parametrize("place", ["options", "extra_body"])
def test_thinking_that_was_configured_is_not_touched(place: str) -> None:
    given = {"thinking": {"type": "enabled", "budget_tokens": 2_000}}
    choice = Choice(temperature=0.1, options=given if place == "options" else {})
    extra = given if place == "extra_body" else {}
    at = target("anthropic", model="claude-opus-5-5", choice=choice, extra_body=extra)
    sent = body(at=at)
    assert sent["thinking"] == given["thinking"]
    assert "temperature" not in sent


THINKS = attrs.evolve(AT, choice=Choice(think=True), info=attrs.evolve(AT.info, can_reason=True))


def history(*parts: Part, at: Any = THINKS) -> tuple[Message, ...]:
    """A turn that has called a tool and waits for the model again."""
    return user("x"), said(*parts, call("t1"), at=at), result("t1")


def test_signed_thoughts_go_back_in_their_places() -> None:
    secret = ReasoningPart("", "redacted_thinking:abc")
    silent = ReasoningPart("", "sig2")
    spoken = turns(*history(THOUGHT, secret, TextPart("Yes."), silent), at=THINKS)[1]["content"]
    assert spoken[:4] == [
        SENT,
        {"type": "redacted_thinking", "data": "abc"},
        {"type": "text", "text": "Yes."},
        {"type": "thinking", "thinking": "", "signature": "sig2"},
    ]


def test_thoughts_of_another_model_or_without_a_signature_never_go_back() -> None:
    other = attrs.evolve(THINKS, info=attrs.evolve(THINKS.info, model="claude-opus-4-5"))
    for sent in (
        turns(*history(THOUGHT, at=other), at=THINKS),
        turns(*history(ReasoningPart("Cut o")), at=THINKS),
    ):
        assert [block["type"] for block in sent[1]["content"]] == ["tool_use"]


def test_a_thought_is_never_the_end_of_a_turn() -> None:
    sent = turns(user("x"), said(THOUGHT, TextPart("Yes."), THOUGHT), user("y"), at=THINKS)
    assert [block["type"] for block in sent[1]["content"]] == ["thinking", "text"]
    alone = turns(user("x"), said(THOUGHT), user("y"), at=THINKS)
    assert [block["text"] for block in alone[0]["content"]] == ["x", "y"]


def test_half_a_turn_without_a_thought_at_its_beginning_is_finished_without_thinking() -> None:
    without = body(*history(TextPart("Yes.")), at=THINKS)
    assert "thinking" not in without
    later = body(*history(THOUGHT), said(call("t2")), result("t2"), at=THINKS)
    assert later["thinking"]["type"] == "enabled"  # its first step has thought
    assert later["messages"][1]["content"][0] == SENT
    anew = body(*history(TextPart("Yes.")), said(TextPart("Done.")), user("y"), at=THINKS)
    assert anew["thinking"]["type"] == "enabled"


def test_a_summary_is_asked_for_without_earlier_thoughts() -> None:
    sent = body(*history(THOUGHT), user("Summarise."), at=THINKS, tools=(), summary=True)
    assert [block["type"] for block in sent["messages"][1]["content"]] == ["tool_use"]
    assert "thinking" not in sent  # half a turn, see above
    new = target("anthropic", model="claude-opus-5", can_reason=True)
    sent = body(*history(THOUGHT, at=new), user("Summarise."), at=new, tools=(), summary=True)
    assert [block["type"] for block in sent["messages"][1]["content"]] == ["tool_use"]
    assert sent["thinking"] == SHOWN


def test_a_claude_that_is_not_asked_to_think_gets_no_thoughts_back_but_others_do() -> None:
    plain = attrs.evolve(THINKS, choice=Choice())
    assert SENT not in turns(*history(THOUGHT), at=plain)[1]["content"]
    off = target("anthropic", model="claude-opus-4-7")
    assert SENT not in turns(*history(THOUGHT, at=off), at=off)[1]["content"]
    other = target("anthropic", model="minimax-m2")
    assert SENT in turns(*history(THOUGHT, at=other), at=other)[1]["content"]
    by_default = target("anthropic", model="claude-sonnet-5")
    assert SENT in turns(*history(THOUGHT, at=by_default), at=by_default)[1]["content"]
