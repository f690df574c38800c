"""What an answer tells about its model: streaming, counting, tools; pure."""

from __future__ import annotations

from typing import Any, Final

from crush_trio.models.checkup.asking import TOOL, Heard
from crush_trio.models.failures import Failure, Kind
from crush_trio.protocol.checks import Check

_AT_ONCE_S: Final = 0.02  # pieces closer together than this may have been collected on the way
_WAITED_S: Final = 1.0  # … which is certain enough if they were waited for so long
_MANY: Final = 4  # … and are so many
_SHORT_CHARS: Final = 12  # an answer that may well be one piece
_RATE_S: Final = 0.05  # no rate is told of a shorter answer

ADVICE: Final[dict[Kind, str]] = {
    Kind.AUTH: "Set a key that this provider accepts, where the check of the key says.",
    Kind.QUOTA: "Look at the account's plan and balance at the provider.",
    Kind.RATE_LIMIT: "Try again in a while, or use another model.",
    Kind.OVERLOAD: "Try again in a while, or use another model.",
    Kind.NETWORK: "Check base_url and the network, and whether the server runs.",
    Kind.SILENT: "Try again; if it stays silent, look at the server's own log.",
    Kind.NO_MODEL: "Name a model that it has: crush-trio models --all lists what is known.",
    Kind.NO_TOOLS: "Choose a model that can call tools: without them it cannot work on files.",
    Kind.URL: "Correct base_url of the provider.",
    Kind.TLS: "Check the address and the clock, and add a missing authority with options.ca_file.",
    Kind.PROXY: "Check HTTPS_PROXY and NO_PROXY.",
    Kind.TOO_LONG: "Give the model a larger window on its server.",
}
"""What to do about a failure; what is not here may pass or is the server's."""

_ELSE: Final = "Try again; if it stays so, the provider's status page or log should say why."


def failed(name: str, failure: Failure, **data: Any) -> Check:
    """A check that a failure ended."""
    advice = ADVICE.get(failure.kind, _ELSE)
    return Check(name, "fail", failure.message, advice, failure.kind.value, data)


def answer(heard: Heard) -> tuple[Check, ...]:
    """What the request without tools has shown: ``answer``, ``streaming`` and ``usage``."""
    if heard.end is None:
        failure = heard.failure or Failure(Kind.EMPTY, "There was no answer.")
        if failure.kind is not Kind.EMPTY or not heard.thought:
            return (failed("answer", failure, took_s=round(heard.took_s, 3)),)
    return _answered(heard), streaming(heard), _usage(heard)


def _answered(heard: Heard) -> Check:
    reason = "unknown" if heard.end is None else heard.end.reason
    tokens = _output_tokens(heard)
    rate = tokens / heard.span_s if tokens and heard.span_s >= _RATE_S else None
    parts = [f"first piece after {seconds(heard.first_s)}"]
    if rate is not None:
        parts.append(f"{rate:.0f} tokens/s")
    parts.append(f"ended with {reason}")
    data = {
        "first_piece_s": round(heard.first_s, 3),
        "took_s": round(heard.took_s, 3),
        "tokens_per_s": None if rate is None else round(rate, 1),
        "finish_reason": reason,
    }
    seen, status, advice = ", ".join(parts), "ok", ""
    if not heard.text.strip() and heard.thought:
        seen += "; it thought for all the few tokens that it was given"
    elif not heard.text.strip():
        status, advice = "warn", "Try again with another model if its answers stay empty."
        seen += ", without a word"
    elif reason == "unknown":
        status = "warn"
        advice = "Nothing needs to be done: an answer that breaks off may not be noticed, though."
    return Check("answer", "ok" if status == "ok" else "warn", seen, advice, data=data)


def streaming(heard: Heard) -> Check:
    """Whether the answer came while it was written."""
    pieces, span, first = len(heard.at), heard.span_s, heard.first_s
    data: dict[str, Any] = {"pieces": pieces, "span_s": round(span, 3), "streams": None}
    if pieces == 0 or (pieces == 1 and len(heard.text) <= _SHORT_CHARS):
        return Check("streaming", "ok", "the answer was too short to tell", data=data)
    collected = "Look for what collects answers between here and the model (proxy_buffering)."
    if pieces == 1:
        data["streams"] = False
        seen = f"the whole answer came in one piece, after {seconds(first)}"
        return Check("streaming", "warn", seen, collected, data=data)
    seen = f"{pieces} pieces within {seconds(span)}"
    if span >= _AT_ONCE_S:
        return Check("streaming", "ok", seen, data=data | {"streams": True})
    if first >= _WAITED_S and pieces >= _MANY:
        data["streams"] = False
        seen = f"{seen}, all at once after {seconds(first)}"
        return Check("streaming", "warn", seen, collected, data=data)
    return Check("streaming", "ok", f"{seen}, too fast to tell whether they wait", data=data)


def _usage(heard: Heard) -> Check:
    usage = None if heard.end is None else heard.end.usage
    if usage is None:
        return Check(
            "usage",
            "warn",
            "the provider does not count tokens",
            "Nothing needs to be done: tokens and cost are estimated, and marked as such.",
            data={"reported": False},
        )
    counted = {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "reported": True,
    }
    seen = f"{usage.input_tokens} tokens in, {usage.output_tokens} out"
    return Check("usage", "ok", seen, data=counted)


def tools(heard: Heard) -> Check:
    """How the model called the tool that it was asked to call."""
    if heard.end is None:
        failure = heard.failure or Failure(Kind.EMPTY, "There was no answer.")
        if failure.kind is Kind.MALFORMED and not heard.is_native and _as_text(failure):
            advice = "Set the parser or template for this model at its server, or choose another."
            return Check(
                "tools", "fail", failure.message, advice, Kind.NO_TOOLS.value, _how("text")
            )
        return failed("tools", failure, calls=None)
    if TOOL.name in heard.calls and heard.is_native:
        return Check("tools", "ok", "it called the tool", data=_how("native"))
    if TOOL.name in heard.calls:
        advice = "It works, and less reliably: set the parser for this model at its server."
        seen = "it wrote the call as text, which was understood"
        return Check("tools", "warn", seen, advice, data=_how("text"))
    if heard.end.reason == "max_tokens" and not heard.text.strip():
        advice = "Nothing needs to be done if runs with it use tools."
        seen = "no call within the few tokens that it was given"
        return Check("tools", "warn", seen, advice, data=_how(None))
    advice = "Choose a model that can call tools: without them it cannot work on files."
    if heard.calls:
        seen = "it called another tool than the one it was offered"
    else:
        seen = "it answered with words, although it was asked to call a tool"
    return Check("tools", "warn", seen, advice, data=_how("none"))


def _as_text(failure: Failure) -> bool:
    return "as text" in failure.message


def _how(calls: str | None) -> dict[str, Any]:
    return {"calls": calls}


def _output_tokens(heard: Heard) -> int:
    usage = None if heard.end is None else heard.end.usage
    return 0 if usage is None else usage.output_tokens


def seconds(value: float) -> str:
    """A duration for people."""
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"
