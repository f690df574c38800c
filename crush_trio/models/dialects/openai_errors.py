"""What an error of an OpenAI-compatible server means: status × codes × words, to a `Failure`.

The same for Chat Completions and Responses. The order: a status that leaves no doubt, the codes
that the server names, its words (for servers that give no codes), and last the status alone.
Codes and words are in `openai_error_words`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from crush_trio.models.dialects.openai_error_words import CODES, WORDS
from crush_trio.models.dialects.said import Said, retry_after_s, said, said_in
from crush_trio.models.failures import Failure, Kind
from crush_trio.models.provider import Provider, Target

_CANNOT_WORK = re.compile(
    "requires more system memory"
)  # Ollama: says 500, but waiting does not help
_ANSWER_TOO_LARGE = re.compile(  # vLLM: the allowance for the answer, not the prompt
    r"max_(?:completion_)?tokens.{0,60}?too large: (\d+)\b.{0,80}?maximum context length is (\d+)",
    re.IGNORECASE | re.DOTALL,
)
_WHERE_WORDS_COUNT = frozenset({400, 403, 404, 413, 422, 424, 429, 451, 500, 501, 502, 503})
_BY_STATUS: Final[dict[int, Kind]] = {
    401: Kind.AUTH,
    402: Kind.QUOTA,
    403: Kind.AUTH,
    405: Kind.URL,
    407: Kind.PROXY,
    408: Kind.SERVER,
    409: Kind.SERVER,  # another request holds a lock: CW 5.6 retries it
    410: Kind.URL,
    413: Kind.TOO_LONG,
    421: Kind.URL,
    425: Kind.SERVER,
    429: Kind.RATE_LIMIT,
    451: Kind.REFUSED,
    498: Kind.OVERLOAD,  # Groq: no capacity for flexible requests
    499: Kind.SERVER,
    503: Kind.OVERLOAD,
    529: Kind.OVERLOAD,
}


def failure(status: int, headers: Mapping[str, str], body: bytes, target: Target) -> Failure:
    """What an answer with an error status means; any status but a good stream may be asked about.

    Keys of ``headers`` are lower case. ``body`` is the beginning of the answer's body.
    """
    words = said(body)
    return _failure(kind_of(status, words), status, headers, words, target)


def stream_failure(error: Any, target: Target) -> Failure:
    """What an error object inside a stream that began well means; ``error`` is parsed JSON."""
    words = said_in(error)
    return _failure(kind_of(words.status or None, words), words.status, {}, words, target)


def kind_of(status: int | None, words: Said) -> Kind:
    """The class of an error by its HTTP status, or by its words if that is ``None``."""
    if status is not None and (status < 400 or status in (401, 402, 405, 407)):
        by_words = _by_words(words)
        if status in (401, 402) and by_words is Kind.FILTERED:
            return by_words
        return Kind.URL if status < 400 else _BY_STATUS[status]
    if words.is_page:
        return _page_kind(status)
    if status is None or status in _WHERE_WORDS_COUNT:
        found = _by_words(words)
        if found is not None and _fits(found, status, words):
            return found
    if status == 404:
        return Kind.URL
    if status is None:
        return Kind.SERVER
    return _BY_STATUS.get(status, Kind.SERVER if status >= 500 else Kind.REFUSED)


def _by_words(words: Said) -> Kind | None:
    answer = _ANSWER_TOO_LARGE.search(words.message)
    if answer and int(answer[1]) >= int(answer[2]):
        return Kind.REFUSED  # no shorter prompt would help
    if _CANNOT_WORK.search(words.message):
        return Kind.REFUSED
    by_words = next((kind for kind, pattern in WORDS if pattern.search(words.message)), None)
    by_code = {CODES[code] for code in words.codes if code in CODES}
    if by_code & {Kind.QUOTA, Kind.TOO_LONG, Kind.FILTERED, Kind.MALFORMED}:
        return next(kind for kind in Kind if kind in by_code)
    if by_words in (Kind.NO_TOOLS, Kind.TOO_LONG):  # more exact than a code for the status
        return by_words
    return next((kind for kind in Kind if kind in by_code), by_words)


def _fits(kind: Kind, status: int | None, words: Said) -> bool:
    """Whether words may overrule what the status says."""
    if status == 429:
        if kind is Kind.QUOTA and "insufficient_quota" not in words.codes:
            return retry_after_s({}, words.message) is None  # Gemini says "quota" for its minute
        return kind in (Kind.QUOTA, Kind.TOO_LONG, Kind.OVERLOAD, Kind.RATE_LIMIT)
    if status == 413:
        return kind is not Kind.RATE_LIMIT  # Groq's code for a request that can never fit
    if status in (500, 501, 502, 503):
        return kind not in (Kind.AUTH, Kind.QUOTA)  # the gateway's own trouble with its upstream
    return True


def _page_kind(status: int | None) -> Kind:
    """HTML: not the provider's interface but whatever stands at the address, or before it."""
    if status == 403:
        return Kind.REFUSED
    if status is None or status in (408, 413, 429) or status >= 500:
        return _BY_STATUS.get(status or 500, Kind.SERVER)
    return Kind.URL


def _failure(
    kind: Kind, status: int, headers: Mapping[str, str], words: Said, target: Target
) -> Failure:
    sentence = _sentence(kind, status, words, target)
    quoted = words.quoted()
    what = "A web page came back" if words.is_page else "It says"
    if words.is_page and not quoted:
        sentence += f" ({what.lower()}, HTTP {status})"
    elif quoted:
        sentence += f'. {what}: "{quoted}"' + (f" (HTTP {status})" if status else "")
    elif status:
        sentence += f" (HTTP {status})"
    return Failure(kind, sentence + ".", retry_after_s(headers, words.message))


def _sentence(kind: Kind, status: int, words: Said, target: Target) -> str:
    provider, model = target.provider, f"{target.provider.id}/{target.info.model}"
    name = provider.name or provider.id
    match kind:
        case Kind.AUTH:
            return f"{name} does not accept the key for {model}: {_key_advice(provider)}"
        case Kind.QUOTA:
            return f"The account at {name} has no credit or quota left for {model}: add some there"
        case Kind.RATE_LIMIT:
            return f"{name} allows no more requests to {model} for now: wait, or take another model"
        case Kind.OVERLOAD:
            return f"{name} is too busy to answer with {model}: try later, or take another model"
        case Kind.NO_MODEL:
            advice = "see `crush-trio models`"
            if provider.is_local:
                advice = "load or download it in that server, or choose one it has"
            return f"{name} has no model {target.info.model} for this key: {advice}"
        case Kind.NO_TOOLS:
            return f"{model} cannot call tools as {name} serves it: {_tools_advice(words)}"
        case Kind.TOO_LONG:
            return f"The conversation is too long for {model}: summarize it, or start a new session"
        case Kind.FILTERED:
            return f"The content filter of {name} refused the request to {model}: word it otherwise"
        case Kind.URL:
            return (
                f"The address of {name} does not lead to its interface: check base_url of provider "
                f"{provider.id} in the configuration"
            )
        case Kind.PROXY:
            return f"The proxy on the way to {name} wants a login: check HTTPS_PROXY"
        case Kind.MALFORMED:
            return f"{model} wrote a tool call that {name} could not read: try again"
        case Kind.REFUSED if words.is_page:
            return f"Something before {name} (a firewall or proxy) refuses requests to it"
        case Kind.REFUSED:
            return (
                f"{name} refuses the request to {model}: check the model's options in the "
                "configuration"
            )
        case _:
            return f"{name} had an error while answering with {model}: try again later"


def _tools_advice(words: Said) -> str:
    if "--enable-auto-tool-choice" in words.message:
        return "start vLLM with --enable-auto-tool-choice and a --tool-call-parser"
    if "--jinja" in words.message:
        return "start llama-server with --jinja"
    return "choose a model that can"


_KEY_VARIABLES: Final = {
    "azure": "AZURE_OPENAI_API_KEY",
    "google": "GEMINI_API_KEY",
    "huggingface": "HF_TOKEN",
}


def _key_advice(provider: Provider) -> str:
    place = f"api_key of provider {provider.id} in the configuration"
    if provider.is_local:
        return f"set {place}"
    plain = re.sub(r"[^A-Z0-9]+", "_", provider.id.upper())
    return f"check {_KEY_VARIABLES.get(provider.id, f'{plain}_API_KEY')}, or {place}"
