"""What local model servers answer about their models, each in its own words; pure.

A server that answers something else than it should is passed over; nothing here raises.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import attrs

from crush_trio import limits

_NO_CHAT: Final = re.compile(r"embed|rerank|\bbge\b|minilm|whisper", re.IGNORECASE)
"""Names of models that do not talk, where the server does not say what a model can do."""

_CLOUD: Final = re.compile(r"[:-]cloud\Z")
"""Ends the name of a model that Ollama runs elsewhere: neither local nor free."""


@attrs.frozen
class LocalModel:
    """A model of a local server; ``None`` is what nobody has said.

    ``window`` is the one the server really uses, in tokens, where it says so.
    """

    id: str
    window: int = 0
    is_running: bool = False
    can_chat: bool = True
    tools: bool | None = None
    images: bool | None = None
    reasons: bool = False


def ollama(answers: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[LocalModel, ...]:
    """From ``/api/tags``, and ``/api/ps`` for those that are in memory."""
    running = {
        _text(entry, "name"): _whole(entry, "context_length")
        for entry in _entries(answers.get("/api/ps"), "models")
    }
    return tuple(
        LocalModel(name, running.get(name, 0), is_running=name in running, can_chat=_talks(name))
        for entry in _entries(answers.get("/api/tags"), "models")
        if (name := _text(entry, "name"))
        and not _CLOUD.search(name)
        and not entry.get("remote_host")
        and not entry.get("remote_model")
    )


def ollama_details(model: LocalModel, shown: Any, environ: Mapping[str, str]) -> LocalModel:
    """The same with what ``/api/show`` says of it.

    The window is that of the running model; else what the model's file asks for (``num_ctx``);
    else what the server was told for all, where we can see it; at most what the model was made
    for. Without any of these it is the latter: Ollama may use less, and does not say.
    """
    if type(shown) is not dict:
        return model
    abilities = shown.get("capabilities")
    model = attrs.evolve(model, window=model.window or _ollama_window(shown, environ))
    if type(abilities) is not list:
        return model
    return attrs.evolve(
        model,
        can_chat="completion" in abilities,
        tools="tools" in abilities,
        images="vision" in abilities,
        reasons="thinking" in abilities,
    )


def _ollama_window(shown: dict[str, Any], environ: Mapping[str, str]) -> int:
    about = shown.get("model_info")
    most = max(
        (
            _whole(about, key)
            for key in (about if type(about) is dict else ())
            if key.endswith(".context_length")
        ),
        default=0,
    )
    asked = re.search(r"^num_ctx\s+(\d{1,9})\s*$", _text(shown, "parameters"), re.MULTILINE)
    told = environ.get("OLLAMA_CONTEXT_LENGTH", "")
    window = int(asked[1]) if asked else int(told) if re.fullmatch(r"[0-9]{1,9}", told) else 0
    return min(window, most) if window and most else window or most


def lmstudio(answers: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[LocalModel, ...]:
    """From ``/api/v1/models`` (since 0.4), else ``/api/v0/models``, else ``/v1/models``."""
    newer = _entries(answers.get("/api/v1/models"), "models")
    if newer:
        return tuple(_lmstudio_v1(entry) for entry in newer if _text(entry, "key"))
    older = _entries(answers.get("/api/v0/models"), "data")
    if older:
        return tuple(_lmstudio_v0(entry) for entry in older if _text(entry, "id"))
    return tuple(
        LocalModel(name, can_chat=_talks(name))
        for entry in _entries(answers.get("/v1/models"), "data")
        if (name := _text(entry, "id"))
    )


def _lmstudio_v1(entry: dict[str, Any]) -> LocalModel:
    instances = _entries(entry, "loaded_instances")
    used = [_whole(each.get("config"), "context_length") for each in instances]
    abilities = entry.get("capabilities")
    known: dict[str, Any] = abilities if type(abilities) is dict else {}
    return LocalModel(
        _text(entry, "key"),
        max(used, default=0) or _whole(entry, "max_context_length"),
        is_running=bool(instances),
        can_chat=_text(entry, "type") != "embedding",
        tools=_flag(known, "trained_for_tool_use"),
        images=_flag(known, "vision"),
        reasons=bool(known.get("reasoning") or known.get("thinking")),
    )


def _lmstudio_v0(entry: dict[str, Any]) -> LocalModel:
    abilities = entry.get("capabilities")
    return LocalModel(
        _text(entry, "id"),
        _whole(entry, "loaded_context_length") or _whole(entry, "max_context_length"),
        is_running=entry.get("state") == "loaded",
        can_chat=_text(entry, "type") not in ("embeddings", "embedding"),
        tools="tool_use" in abilities if type(abilities) is list else None,
        images=_text(entry, "type") == "vlm",
    )


def llamacpp(answers: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[LocalModel, ...]:
    """From ``/v1/models`` and ``/props``; others use port 8080, too, so it must look like it."""
    props = answers.get("/props")
    about: dict[str, Any] = props if type(props) is dict else {}
    entries = _entries(answers.get("/v1/models"), "data")
    if not any(_text(entry, "owned_by") == "llamacpp" for entry in entries):
        return ()
    window = _whole(about.get("default_generation_settings"), "n_ctx")
    caps = about.get("chat_template_caps")
    modalities = about.get("modalities")
    return tuple(
        LocalModel(
            name,
            window or _whole(entry.get("meta"), "n_ctx_train"),
            is_running=_is_loaded(entry),
            can_chat=_talks(name),
            tools=_flag(caps, "supports_tools") if len(entries) == 1 else None,
            images=_flag(modalities, "vision") if len(entries) == 1 else None,
        )
        for entry in entries
        if (name := _text(entry, "id"))
    )


def _is_loaded(entry: dict[str, Any]) -> bool:
    """A server of one model has it loaded; one that routes to several says which are."""
    status = entry.get("status")
    return type(status) is not dict or _text(status, "value") == "loaded"


def vllm(answers: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[LocalModel, ...]:
    """From ``/v1/models``; others use port 8000, too, so it must say that it is vLLM."""
    return tuple(
        LocalModel(name, _whole(entry, "max_model_len"), is_running=True, can_chat=_talks(name))
        for entry in _entries(answers.get("/v1/models"), "data")
        if (name := _text(entry, "id")) and _text(entry, "owned_by") == "vllm"
    )


def _entries(value: Any, key: str) -> list[dict[str, Any]]:
    """The objects in the list at ``key``; the first `limits.LOCAL_MODELS` of them."""
    found = value.get(key) if type(value) is dict else None
    if type(found) is not list:
        return []
    return [entry for entry in found[: limits.LOCAL_MODELS] if type(entry) is dict]


def _talks(name: str) -> bool:
    return _NO_CHAT.search(name) is None


def _text(value: Any, key: str) -> str:
    found = value.get(key) if type(value) is dict else None
    return found if type(found) is str else ""


def _whole(value: Any, key: str) -> int:
    found = value.get(key) if type(value) is dict else None
    return found if type(found) is int and 0 < found <= limits.CATALOGUE_TOKENS_MAX else 0


def _flag(value: Any, key: str) -> bool | None:
    found = value.get(key) if type(value) is dict else None
    return found if type(found) is bool else None
