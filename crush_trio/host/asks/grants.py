"""What "allow for this session" covers: as little as a person may have meant (pure).

A command: this very text, in this directory, and in a sandbox if it was allowed in one. A file:
this tool and action on the files of this directory, as in Crush. A search: this tool in this place.
A fetch: this host. Anything else, as a tool of an MCP server: this very call.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any, Final
from urllib.parse import urlsplit

from crush_trio.agent.ports import PermissionAsk
from crush_trio.protocol import codec
from crush_trio.protocol.digests import request_digest
from crush_trio.store.contract import Grant

_FETCHING: Final = frozenset({"fetch", "agentic_fetch", "download", "web_fetch"})
_SEARCHING: Final = frozenset({"ls", "glob", "grep"})
_FOREGROUND: Final = "command:"
_BACKGROUND: Final = "background:"
_SANDBOXED: Final = "sandboxed "
_HOST: Final = "host:"


def grant_of(ask: PermissionAsk) -> Grant:
    """What allowing ``ask`` for the session would cover; two calls with equal ones are alike.

    Raises:
        DecodeError: Its parameters are nothing that JSON can hold.
    """
    return Grant(ask.tool_name, ask.action, ask.path, _scope(ask))


def covers(grant: Grant) -> str:
    """That in words for whoever decides, to stand behind "for this session"."""
    doing, path = f"{grant.tool_name} ({grant.action})", grant.path
    command = grant.scope.removeprefix(_SANDBOXED)
    inside = ", in a sandbox" if command != grant.scope else ""
    if command.startswith(_FOREGROUND):
        return f"exactly this command in {path}{inside}"
    if command.startswith(_BACKGROUND):
        return f"exactly this command in {path}, in the background{inside}"
    if grant.scope.startswith(_HOST):
        where = "" if grant.tool_name != "download" else f" into the directory {path}"
        return f"{doing} from {grant.scope.removeprefix(_HOST)}{where}"
    if grant.scope:
        return f"exactly this call of {doing}"
    if grant.tool_name in _SEARCHING:
        return f"{doing} in {path}"
    return f"{doing} of every file directly in {path}"


def grant_id(grant: Grant) -> str:
    """A name for it by which it can be taken back."""
    key = "\0".join((grant.tool_name, grant.action, grant.path, grant.scope))
    return sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _scope(ask: PermissionAsk) -> str:
    params = ask.params if isinstance(ask.params, dict) else {}
    if ask.tool_name == "bash":
        return f"{_SANDBOXED if ask.sandboxed else ''}{_background(params)}{ask.target}"
    if ask.tool_name in _FETCHING and (host := _host(params.get("url"))):
        return f"{_HOST}{host}"
    if ask.tool_name in _SEARCHING:
        return ""
    if ask.action in ("read", "write") and "file_path" in params:
        return ""
    return f"call:{request_digest(codec.parse(codec.encode(params)))}"


def _background(params: dict[str, Any]) -> str:
    """A command that may outlive its run is another thing than one that ends with it."""
    outlives = params.get("run_in_background") or params.get("auto_background_after")
    return _BACKGROUND if outlives else _FOREGROUND


def _host(url: Any) -> str:
    """Scheme, host and port of an address; empty if it has none that is clear."""
    if not isinstance(url, str):
        return ""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return ""
    return f"{parts.scheme}://{parts.hostname}" + (f":{port}" if port else "")
