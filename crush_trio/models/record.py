"""``--record FILE``: a model that passes another one through and writes what it streamed."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs
import orjson
import trio

from crush_trio.agent.ports import (
    Emit,
    HasSmaller,
    Model,
    ModelError,
    ModelEvent,
    ModelInfo,
    ModelRequest,
    StepEnd,
    Titler,
)
from crush_trio.models.masking import masked, masked_actions, secrets_among
from crush_trio.models.prompts import prompt_of
from crush_trio.models.recorded_step import RecordedStep
from crush_trio.models.script_schema import ModelFacts
from crush_trio.protocol.errors import Refused


def check_record_file(path: Path) -> None:
    """What can be told of a `RecordingModel`'s file before it is made, so that it can be refused.

    Raises:
        Refused: ``record_file``: it is relative, exists, or has no directory one may write to.
    """
    if not path.is_absolute():
        raise Refused("record_file", f"--record {path} must be an absolute path")
    if os.path.lexists(path):
        raise Refused("record_file", f"--record {path} exists already: name a file that does not")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        reason = os.strerror(errno.EACCES if path.parent.is_dir() else errno.ENOENT)
        raise Refused("record_file", f"--record {path} cannot be created: {reason}")


class RecordingModel:
    """Streams what ``model`` streams and keeps a script file of it up to date.

    The file is created at once, is complete after each step, and can be played as
    ``script/<path>``: with the same timing, faults and cancellations included. Steps of several
    runs are told apart by prompt and prompt number.

    Args:
        model: The model to record.
        path: Absolute path of a file that does not exist.
        secrets: Gives what must not get into the file, such as the key that was sent, whoever
            wrote it: it is masked in texts, arguments and errors.

    Raises:
        Refused: ``record_file`` if the file exists or cannot be created.
    """

    def __init__(
        self, model: Model, path: Path, secrets: Callable[[], Iterable[str]] = tuple
    ) -> None:
        self._model = model
        self._path = path
        self._secrets = secrets
        self._steps: list[RecordedStep] = []
        self._summaries: list[RecordedStep] = []
        self._sub_agents: list[RecordedStep] = []
        check_record_file(path)
        try:
            with path.open("xb") as file:  # "x" claims the name: nothing is ever overwritten
                file.write(self._script())
        except FileExistsError as exc:
            raise Refused(
                "record_file", f"--record {path} exists already: name a file that does not"
            ) from exc
        except OSError as exc:
            raise Refused(
                "record_file", f"--record {path} cannot be created: {exc.strerror or exc}"
            ) from exc

    @property
    def info(self) -> ModelInfo:
        """What the recorded model is."""
        return self._model.info

    async def stream(self, request: ModelRequest, emit: Emit) -> StepEnd:
        """Stream the recorded model's step and add it to the file, however it ends.

        Raises:
            ModelError: The recorded model's own, or ``record_failed`` if the file could not be
                written.
        """
        return await self.recorded(self._model, request, emit)

    async def recorded(self, model: Model, request: ModelRequest, emit: Emit) -> StepEnd:
        """As `stream`, of a model that works beside the recorded one."""
        if request.title:  # titles are not recorded
            return await model.stream(request, emit)
        prompt, number = prompt_of(request)
        step = RecordedStep(request.run_id, prompt, number, trio.current_time())
        steps = self._sub_agents if request.sub_agent else self._steps
        (self._summaries if request.summary else steps).append(step)

        def both(event: ModelEvent) -> None:
            step.add(event, trio.current_time())
            emit(event)

        try:
            end = await model.stream(request, both)
        except ModelError as exc:
            step.failed(exc, trio.current_time())
            self._write()
            raise
        except trio.Cancelled:
            step.cancelled(trio.current_time())
            # The run is over; a full disk must not turn its cancellation into another error.
            with contextlib.suppress(ModelError):
                self._write()
            raise
        step.ended(end, trio.current_time())
        self._write()
        return end

    def titler(self) -> Model | None:
        """The recorded model's; titles are not recorded."""
        return self._model.titler() if isinstance(self._model, Titler) else None

    def smaller(self) -> Model | None:
        """The recorded model's; what it streams gets into the same file."""
        found = self._model.smaller() if isinstance(self._model, HasSmaller) else None
        return None if found is None else _Beside(self, found)

    def _script(self) -> bytes:
        info = self._model.info
        facts = {name: getattr(info, name) for name in attrs.fields_dict(ModelFacts)}
        facts["name"] = info.name or info.model
        secrets = secrets_among(self._secrets())
        value: dict[str, Any] = {
            "version": 1,
            "model": facts,
            "steps": _to_json(self._steps),
        }
        if self._sub_agents:
            value["sub_agents"] = _to_json(self._sub_agents)
        if self._summaries:
            summaries = [step.to_json(only_for_its_prompt=False) for step in self._summaries]
            value["summary"] = summaries
        if secrets:
            for where in ("steps", "sub_agents", "summary"):
                for step in value.get(where, ()):
                    step["actions"] = masked_actions(step["actions"], secrets)
            value = masked(value, secrets)
        return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)

    def _write(self) -> None:
        partial = self._path.with_name(self._path.name + ".partial")
        try:
            partial.write_bytes(self._script())
            os.replace(partial, self._path)
        except OSError as exc:
            raise ModelError(
                "record_failed",
                f"{self._path} cannot be written: {exc.strerror or exc}",
                title="Recording failed",
            ) from exc


@attrs.frozen
class _Beside:
    """A model that works beside the recorded one, for its sub-agents."""

    recording: RecordingModel
    model: Model

    @property
    def info(self) -> ModelInfo:
        return self.model.info

    async def stream(self, request: ModelRequest, emit: Emit) -> StepEnd:
        return await self.recording.recorded(self.model, request, emit)


def _to_json(steps: Sequence[RecordedStep]) -> list[dict[str, Any]]:
    several = len({step.run_id for step in steps}) > 1
    return [step.to_json(only_for_its_prompt=several) for step in steps]
