"""The checks that need no server: this program, its directories, its configuration."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from crush_trio import __version__, limits
from crush_trio.cli.options import ServerFlags
from crush_trio.client.endpoint import UnixEndpoint
from crush_trio.client.locate import Target
from crush_trio.config.check import Finding, check
from crush_trio.config.paths import data_directory
from crush_trio.models.catalogue import FILE, load
from crush_trio.protocol.checks import Check
from crush_trio.protocol.errors import ConfigError
from crush_trio.protocol.sockets import PATH_BYTES_MAX
from crush_trio.tools.permission.names import finding_of

_OLDEST = (3, 11)


def program() -> Check:
    """This program, the interpreter it runs on, and the machine."""
    python = platform.python_version()
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    seen = f"crush-trio {__version__}, Python {python}, {system}"
    data = {"version": __version__, "python": python, "platform": system}
    if sys.version_info < _OLDEST:
        return Check("program", "fail", seen, "Use Python 3.11 or newer.", "python", data)
    if platform.system() not in ("Linux", "Darwin"):
        return Check("program", "warn", seen, "Use Linux or macOS.", data=data)
    return Check("program", "ok", seen, data=data)


def directory(flags: ServerFlags) -> Check:
    """The data directory: whether a server can write there, and whether there is room."""
    try:
        path = data_directory(os.environ, flags.data_dir)
    except ConfigError as exc:
        return Check("data_dir", "fail", str(exc), "Name one with --data-dir.", "config_invalid")
    existing = next(each for each in (path, *path.parents) if os.path.lexists(each))
    if not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
        seen = f"{existing} is no directory that can be written to"
        advice = "Make it writable, or name another with --data-dir."
        return Check("data_dir", "fail", seen, advice, "config", {"path": str(path)})
    free = shutil.disk_usage(existing).free
    data = {"path": str(path), "exists": existing == path, "free_bytes": free}
    made = "" if existing == path else ", which will be made"
    seen = f"{path}{made}; {_size(free)} free"
    if free < limits.DOCTOR_FREE_BYTES:
        return Check("data_dir", "warn", seen, "Make room: prompts are refused on a full disk.",
                     data=data)  # fmt: skip
    return Check("data_dir", "ok", seen, data=data)


def socket(target: Target) -> Check:
    """Where the server is looked for."""
    url = target.endpoint.url
    data = {"url": url}
    if not isinstance(target.endpoint, UnixEndpoint):
        return Check("socket", "ok", url, data=data)
    path = target.endpoint.path
    if len(os.fsencode(path)) > PATH_BYTES_MAX:
        advice = "Set XDG_RUNTIME_DIR to a short path, or name one with serve --host."
        seen = f"{path} is longer than the {PATH_BYTES_MAX} bytes that a socket's path may have"
        return Check("socket", "fail", seen, advice, "config", data)
    state = "there" if path.exists() else "not there yet"
    return Check("socket", "ok", f"{path}, {state}", data=data | {"exists": path.exists()})


def configuration(cwd: str, target: Target) -> Check:
    """The configuration files of a directory, as ``config check`` reads them."""
    known = load(None if target.data_dir is None else target.data_dir / FILE).providers()
    usual = {provider.id: provider.key_variables for provider in known}
    found = check(
        Path(cwd), environ=os.environ, data_dir=target.data_dir, usual=usual, rule=finding_of
    )
    findings = [*_weighed(found.findings)]
    errors = [each.text for each in findings if each.level == "error"]
    doubts = [each.text for each in findings if each.level in ("warning", "inert")]
    read = [each.text.partition(":")[0] for each in findings if each.level == "read"]
    data = {"findings": [{"level": each.level, "text": each.text} for each in findings]}
    told = (errors + doubts)[:1]
    more = len(errors) + len(doubts) - 1
    seen = f"{told[0]}{f' (and {more} more)' if more > 0 else ''}" if told else _files(read)
    if errors:
        advice = "Correct it: crush-trio config check shows all that was found."
        return Check("configuration", "fail", seen, advice, "config_invalid", data)
    if any(each.level == "inert" for each in findings):
        advice = (
            "Look at the files, then trust them with crush-trio config trust if they are yours."
        )
        return Check("configuration", "warn", seen, advice, data=data)
    if doubts:
        advice = "Correct it: crush-trio config check shows all that was found."
        return Check("configuration", "warn", seen, advice, data=data)
    return Check("configuration", "ok", seen, data=data)


def _weighed(findings: tuple[Finding, ...]) -> Iterator[Finding]:
    """A key that is missing here may be the server's: then only the check ``key`` can tell."""
    for each in findings:
        is_key = each.level == "error" and " has no key" in each.text
        yield Finding("warning", each.text) if is_key else each


def _files(read: list[str]) -> str:
    return f"read {', '.join(read)}" if read else "there is none, so everything has its default"


def _size(count: int) -> str:
    gib = count / 1024**3
    return f"{gib:.1f} GiB" if gib >= 1 else f"{count / 1024**2:.0f} MiB"
