"""``crush-trio doctor`` at work: the checks of this side, then those that the server makes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing, suppress
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import quote, urlencode

import attrs
import trio

from crush_trio import __version__, limits
from crush_trio.cli import doctor_here as here
from crush_trio.cli import exit_codes
from crush_trio.cli.brought import bring_here
from crush_trio.cli.doctor_sandbox import sandbox
from crush_trio.cli.group import code_of
from crush_trio.cli.link import Link, target_of
from crush_trio.cli.options import ServerFlags
from crush_trio.cli.output import note, say, stderr_is_terminal, write_lines
from crush_trio.cli.sanitize import one_line
from crush_trio.cli.session_flow import workspace_id
from crush_trio.client.api import Api
from crush_trio.client.autostart import ensure_server
from crush_trio.client.errors import BadAnswer, ServerRefused
from crush_trio.client.http import Http, open_http
from crush_trio.client.lines import json_lines
from crush_trio.client.locate import Target
from crush_trio.client.shapes import JsonObject, text
from crush_trio.protocol.checks import Check
from crush_trio.protocol.errors import CrushError

Tell: TypeAlias = Callable[[Check], None]
"""Takes a check when it is made; never waits."""

UNREACHABLE: Final = "server_unreachable"
"""The code of a check that found no server."""

_WORDS: Final = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}
_TOLD_CHARS: Final = 1_000  # of one check's text; no sentence of ours is longer
_SILENCE_S: Final = limits.DOCTOR_ANSWER_S + 2 * limits.DOCTOR_CONNECT_S  # between two checks
_ADVICE: Final = {
    exit_codes.UNREACHABLE: "Start one with crush-trio serve, or leave out --no-autostart.",
    exit_codes.CONFIGURATION: "crush-trio logs shows what the server said.",
}
_KEPT: Final = {
    "cgroup": "a control group for each command",
    "subreaper": "a launcher above each command, which adopts what the command leaves behind",
    "process_group": "process groups; what leaves its group outlives its command",
}


class Wanted(NamedTuple):
    """What is to be looked at."""

    cwd: str
    model: str | None
    offline: bool
    require_model: bool


async def doctor(flags: ServerFlags, wanted: Wanted, as_json: bool) -> int:
    """Make all checks, telling each when it is made; the exit code."""
    told: list[Check] = []

    def tell(check: Check) -> None:
        told.append(check)
        if not as_json:
            say(line(check))

    target = await _here(flags, wanted, tell)
    if target is not None:
        async with open_http(target.endpoint, target.token) as http:
            link = await _serving(target, http, flags, tell)
            if link is not None:
                await _with_server(link, wanted, tell)
    failed = [each for each in told if each.status == "fail"]
    if as_json:
        await write_lines([{"ok": not failed, "checks": [each.as_json() for each in told]}])
    return exit_code(failed)


def exit_code(failed: list[Check]) -> int:
    """What the failed checks mean to a script: see ``doctor --help``."""
    codes = {each.code for each in failed}
    if UNREACHABLE in codes:
        return exit_codes.UNREACHABLE
    if codes & exit_codes.CONFIGURATION_CODES:
        return exit_codes.CONFIGURATION
    return exit_codes.FAILED if failed else exit_codes.COMPLETED


def line(check: Check) -> str:
    """A check for people; its advice is a line of its own."""
    seen = one_line(check.seen, _TOLD_CHARS)
    advice = one_line(check.advice, _TOLD_CHARS)
    told = f"{_WORDS[check.status]}  {check.name.replace('_', ' ')}: {seen}"
    return f"{told}\n      {advice}" if advice else told


async def _here(flags: ServerFlags, wanted: Wanted, tell: Tell) -> Target | None:
    """What needs no server; where it is to be found, unless it cannot be anywhere."""
    tell(here.program())
    if flags.server is None:
        found = await trio.to_thread.run_sync(here.directory, flags)
        tell(found)
        if found.status == "fail":
            return None
    try:
        target = target_of(flags)
    except CrushError as exc:
        advice = "Correct it, or name a server with --server."
        tell(Check("socket", "fail", str(exc), advice, "config"))
        return None
    found = here.socket(target)
    tell(found)
    if found.status == "fail":
        return None
    tell(await trio.to_thread.run_sync(here.configuration, wanted.cwd, target))
    tell(await trio.to_thread.run_sync(sandbox, wanted.cwd, target))
    return target


async def _serving(target: Target, http: Http, flags: ServerFlags, tell: Tell) -> Link | None:
    """A server that answers, if there is one or one can be started."""
    notice = note if stderr_is_terminal() else None
    was_running = True
    try:
        await Api(http).version(timeout=limits.AUTOSTART_PROBE_S)
    except CrushError:
        was_running = False
    try:
        version = await ensure_server(target, http, autostart=flags.autostart, notice=notice)
    except CrushError as exc:
        tell(_failed("server", exc, _ADVICE.get(code_of(exc), "")))
        return None
    tell(_server(version, was_running))
    control = text(version, "process_control")
    kept = _KEPT.get(control, "what it does not say")
    tell(Check("processes", "ok", f"kept together by {kept}", data={"control": control}))
    return Link(target, http, Api(http), version, flags.autostart)


def _server(version: JsonObject, was_running: bool) -> Check:
    theirs = text(version, "version")
    data = {"version": theirs, "pid": version.get("pid"), "started": not was_running}
    how = "running" if was_running else "started for this"
    seen = f"version {theirs}, pid {version.get('pid')}, {how}"
    if theirs != __version__:
        advice = f"crush-trio stop ends it when its work is done; the next one is {__version__}."
        return Check("server", "warn", seen, advice, data=data)
    return Check("server", "ok", seen, data=data)


async def _with_server(link: Link, wanted: Wanted, tell: Tell) -> None:
    """The checks that the server makes, with the keys of this environment."""
    try:
        brought = await trio.to_thread.run_sync(bring_here, link.target, wanted.cwd)
        workspace = await workspace_id(link, wanted.cwd, brought)
    except CrushError as exc:
        tell(_failed("workspace", exc))
        return
    if stderr_is_terminal() and not wanted.offline:
        note("the model is asked twice, for a few words each (--offline does not ask)")
    query = {} if brought.client_id is None else {"client_id": brought.client_id}
    path = f"/v1/workspaces/{quote(workspace, safe='')}/doctor?{urlencode(query)}".rstrip("?")
    try:
        await _stream(link, path, wanted, tell)
    except CrushError as exc:
        tell(_failed("checkup", exc, _old(exc)))
    if brought.client_id is not None:
        with suppress(CrushError):  # then the hold ends by itself
            await link.api.release(workspace, brought.client_id)


async def _stream(link: Link, path: str, wanted: Wanted, tell: Tell) -> None:
    body: dict[str, Any] = {"offline": wanted.offline}
    if wanted.model is not None:
        body["model"] = wanted.model
    target = link.target
    async with aclosing(
        json_lines(target.endpoint, target.token, path, body, silence_s=_SILENCE_S)
    ) as objects:
        async for each in objects:
            if each.get("done") is True:
                return
            tell(_demanded(_check(each), wanted))
    seen = "the server stopped before it had made all checks"
    tell(Check("checkup", "fail", seen, "Try again.", UNREACHABLE))


def _demanded(check: Check, wanted: Wanted) -> Check:
    """With ``--require-model`` the built-in planner will not do."""
    if wanted.require_model and check.code == "no_language_model":
        return attrs.evolve(check, status="fail")
    return check


def _check(told: JsonObject) -> Check:
    status, data = told.get("status"), told.get("data")
    if status not in _WORDS or not text(told, "name"):
        raise BadAnswer("the server's checkup is of another shape than this command knows")
    return Check(
        text(told, "name"),
        status,
        text(told, "seen"),
        text(told, "advice"),
        text(told, "code"),
        data if isinstance(data, dict) else {},
    )


def _failed(name: str, error: CrushError, advice: str = "") -> Check:
    """A check that could not be made; its code leads to the exit code that any command has."""
    code = error.code if isinstance(error, ServerRefused) else "failed"
    meaning = code_of(error)
    if meaning == exit_codes.UNREACHABLE:
        code = UNREACHABLE
    elif meaning == exit_codes.CONFIGURATION and code not in exit_codes.CONFIGURATION_CODES:
        code = "config"
    return Check(name, "fail", str(error), advice, code)


def _old(error: CrushError) -> str:
    if isinstance(error, ServerRefused) and error.code == "not_found":
        return "That server is older than this command: crush-trio stop, then try again."
    return ""
