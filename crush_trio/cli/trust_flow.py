"""What ``crush-trio config trust`` does: show, ask, and remember what was shown."""

from __future__ import annotations

import os
import termios
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import click

from crush_trio.cli import exit_codes
from crush_trio.cli.output import note, say, stderr_is_terminal, warn
from crush_trio.cli.sanitize import for_terminal
from crush_trio.config.load import load_config, review
from crush_trio.config.review import review_text
from crush_trio.config.trusted import read_trust, revoke, trust
from crush_trio.protocol.errors import ConfigError

_LINE_BYTES = 4096


def give_trust(directory: Path, environ: Mapping[str, str], *, yes: bool) -> int:
    """Show the inert parts of ``directory`` and trust exactly those, if a person says so.

    Raises:
        ConfigError: The files, or the list of trusted directories, cannot be used.
        click.UsageError: Nobody can be asked.
    """
    found = review(directory, environ=environ)
    problem = read_trust(environ).problem
    if problem:
        raise ConfigError(problem)
    if found.state == "unneeded":
        say(f"{directory}: nothing to trust; everything in its files counts already.")
        return exit_codes.COMPLETED
    say(review_text(found))
    if found.state == "trusted":
        say(f"{directory} is trusted.")
        return exit_codes.COMPLETED
    if found.state == "changed":
        note("This has changed since the directory was trusted.")
    if not yes and not _agrees(directory):
        warn("not trusted; nothing has changed.")
        return exit_codes.FAILED
    trust(directory, found.digest, environ)
    say(f"{directory} is trusted, until the above changes.")
    try:
        load_config(directory, environ=environ)
    except ConfigError as exc:
        warn(str(exc))
    return exit_codes.COMPLETED


def revoke_trust(directory: str, environ: Mapping[str, str]) -> int:
    """Trust ``directory`` no more; it may have gone."""
    name = os.path.abspath(directory)
    known = revoke(name, environ)
    say(f"{name} is not trusted any more." if known else f"{name} was not trusted.")
    return exit_codes.COMPLETED


def list_trusted(environ: Mapping[str, str], *, as_json: bool) -> int:
    """Print the trusted directories, and whether their files are still those that were."""
    found = read_trust(environ)
    if found.problem:
        raise ConfigError(found.problem)
    entries = [
        {"directory": each.directory, "since": each.since, "state": _state(each.directory, environ)}
        for each in found.entries.values()
    ]
    if as_json:
        import orjson

        say(orjson.dumps(entries).decode())
    else:
        for entry in entries:
            say(f"{entry['directory']}  {entry['state']}  since {entry['since']}")
    return exit_codes.COMPLETED


def _state(directory: str, environ: Mapping[str, str]) -> str:
    """``trusted``, ``changed``, ``unneeded``, ``missing`` or ``broken``."""
    if not os.path.isdir(directory):
        return "missing"
    try:
        return review(Path(directory), environ=environ).state
    except ConfigError:
        return "broken"


def _agrees(directory: Path) -> bool:
    """Whether the person at the terminal says yes; what was typed before the question is lost."""
    if not (os.isatty(0) and stderr_is_terminal()):
        raise click.UsageError("there is no terminal to ask at; to trust the above, add --yes.")
    question = f"Trust {for_terminal(str(directory))} with this? [y/N] "
    with suppress(OSError, termios.error):  # then it is no terminal any more, and reads fail
        termios.tcflush(0, termios.TCIFLUSH)
    os.write(2, question.encode("utf-8", "backslashreplace"))
    try:
        said = os.read(0, _LINE_BYTES)
    except OSError:
        return False
    return said.strip().lower() in (b"y", b"yes")
