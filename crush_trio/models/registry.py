"""Which models there are, and the model behind a name such as ``offline/scout``."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from crush_trio.agent.ports import Model, ModelInfo
from crush_trio.models.scout.model import SCOUT, Scout
from crush_trio.models.script import ScriptModel
from crush_trio.models.script_schema import load_script
from crush_trio.protocol.errors import DecodeError, Refused

DEFAULT_MODEL: Final = f"{SCOUT.provider}/{SCOUT.model}"
_AVAILABLE: Final = f"{DEFAULT_MODEL}, script/<absolute path of a JSON file>"


def available() -> tuple[ModelInfo, ...]:
    """The models that can be named without a file, a key or a network."""
    return (SCOUT,)


def resolve(name: str | None, *, allow_script: bool) -> Model:
    """The model called ``name`` (``provider/model``); ``None`` is `DEFAULT_MODEL`.

    Reads the file of a script, so that a mistake in it is refused before the run is accepted.

    Args:
        allow_script: Whether this caller may have files played (contract 9).

    Raises:
        Refused: ``unknown_model`` for a name that means nothing here or a broken script file,
            ``model_not_allowed`` for a script when ``allow_script`` is false.
    """
    if name is None:
        return Scout()
    provider, slash, model = name.partition("/")
    if not slash:
        raise Refused(
            "unknown_model",
            f"model '{name}' names no provider: write provider/model; available: {_AVAILABLE}",
        )
    if provider == "script":
        return _script(model, allow_script)
    if provider != SCOUT.provider:
        raise Refused(
            "unknown_model",
            f"provider '{provider}' is not supported by this version; available: {_AVAILABLE}",
        )
    if model != SCOUT.model:
        raise Refused(
            "unknown_model",
            f"provider '{provider}' has no model '{model}'; available: {_AVAILABLE}",
        )
    return Scout()


def _script(file: str, allow_script: bool) -> Model:
    if not allow_script:
        raise Refused(
            "model_not_allowed",
            "script models are played on the local unix socket only, unless the server was "
            "started with --allow-script-models",
        )
    path = Path(file)
    if not path.is_absolute():
        raise Refused(
            "unknown_model", f"script file '{file}' must be an absolute path: script//path/to/file"
        )
    try:
        return ScriptModel(load_script(path), path)
    except DecodeError as exc:
        raise Refused("unknown_model", str(exc)) from exc
