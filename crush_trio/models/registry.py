"""The models that need no provider: the built-in planner, and scripts that play a file."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from crush_trio.agent.ports import Model, ModelInfo
from crush_trio.models.scout.model import SCOUT, Scout
from crush_trio.models.script import ScriptModel
from crush_trio.models.script_schema import load_script
from crush_trio.protocol.errors import DecodeError, Refused

DEFAULT_MODEL: Final = f"{SCOUT.provider}/{SCOUT.model}"
SCRIPT: Final = "script"


def available() -> tuple[ModelInfo, ...]:
    """The models that can be named without a file, a key or a network."""
    return (SCOUT,)


def default() -> Model:
    """What is left when nothing was asked for, configured or found (contract 9)."""
    return Scout()


def is_built_in(name: str) -> bool:
    """Whether a model's name belongs here, whether or not there is such a model."""
    return name.partition("/")[0] in (SCOUT.provider, SCRIPT)


def resolve(name: str, *, allow_script: bool) -> Model:
    """The model called ``name``, which `is_built_in`; blocking.

    Reads the file of a script, so that a mistake in it is refused before the run is accepted.

    Args:
        allow_script: Whether this caller may have files played (contract 9).

    Raises:
        Refused: ``unknown_model`` for a name that means nothing here or a broken script file,
            ``model_not_allowed`` for a script when ``allow_script`` is false.
    """
    provider, _, model = name.partition("/")
    if provider == SCRIPT:
        return _script(model, allow_script)
    if model not in ("", SCOUT.model):
        raise Refused(
            "unknown_model",
            f"provider '{provider}' has no model '{model}'; there is {DEFAULT_MODEL}",
        )
    return default()


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
