"""What a shell offers for a value on the command line; imports nothing heavy, and never fails."""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
from click.shell_completion import CompletionItem

from crush_trio import limits
from crush_trio.cli.sanitize import one_line
from crush_trio.config.paths import data_directory
from crush_trio.protocol.errors import CrushError
from crush_trio.protocol.sockets import check_socket_directory, default_socket_path

_CATALOGUE: Final = "catalogue.json"
_BUILT_IN: Final = "offline/scout"
_NOTHING: Final = (CrushError, OSError, ValueError, LookupError, TypeError, StopIteration)


def model_names(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Models of the catalogue for ``-m``; before a slash is typed, those that a key is set for.

    What a configuration or a local server adds is not looked up: that would take a server.
    """
    providers = _catalogue(ctx.params.get("data_dir"))
    usable = [each for each in providers if any(map(os.environ.get, each.keys))]
    shown = providers if "/" in incomplete or not usable else usable
    names = [_BUILT_IN, *(name for each in shown for name in each.models)]
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def session_ids(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Sessions of the directory for ``-s``, the newest first, if a server answers at once.

    None is started for it, and after `limits.COMPLETION_S` there is nothing to offer.
    """
    with suppress(*_NOTHING):  # then nothing is offered
        deadline = time.monotonic() + limits.COMPLETION_S
        cwd = os.path.realpath(ctx.params.get("cwd") or ".")
        path = _socket(ctx.params.get("data_dir"))
        known = _get(path, "/v1/workspaces?known=true", deadline)
        workspace = next(each["id"] for each in known if each["path"] == cwd)
        found = _get(path, f"/v1/workspaces/{workspace}/sessions", deadline)
        offered = [
            ("latest", "the one used last"),
            *((each["id"], one_line(each["title"], 60)) for each in found),
        ]
        return [
            CompletionItem(name, help=title)
            for name, title in offered
            if name.startswith(incomplete)
        ]
    return []


class _Provider(NamedTuple):
    """The variables of its key, and the names of its models."""

    keys: list[str]
    models: list[str]


def _catalogue(data_dir: str | None) -> list[_Provider]:
    """The providers of the renewed list if there is one, else of the shipped one."""
    shipped = Path(__file__).parent.parent / "models" / "catalogue" / _CATALOGUE
    with suppress(*_NOTHING):  # there is none, or it is broken
        return _read(_data_dir(data_dir) / _CATALOGUE)
    return _read(shipped)


def _read(path: Path) -> list[_Provider]:
    with path.open("rb") as file:
        raw = file.read(limits.CATALOGUE_BYTES + 1)
    return [
        _Provider(each["key_variables"], [f"{each['id']}/{one['id']}" for one in each["models"]])
        for each in json.loads(raw)["providers"]
    ]


def _data_dir(given: str | None) -> Path:
    return data_directory(os.environ, given)


def _socket(data_dir: str | None) -> Path:
    path = default_socket_path(_data_dir(data_dir), os.environ, os.getuid())
    check_socket_directory(path.parent, os.getuid())
    return path


def _get(path: Path, target: str, deadline: float) -> Any:
    """The JSON that a running server answers, before the deadline."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(max(0.001, deadline - time.monotonic()))
        peer.connect(str(path))
        peer.sendall(
            f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        )
        answer = b""
        while piece := peer.recv(limits.CLIENT_RECEIVE_BYTES):
            answer += piece
            peer.settimeout(max(0.001, deadline - time.monotonic()))
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise ValueError("no answer")
    return json.loads(body)
