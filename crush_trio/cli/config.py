"""``crush-trio config``: show, path, check, trust, schema. Reads files; needs no server."""

from __future__ import annotations

import os
from pathlib import Path

import click

from crush_trio.cli import exit_codes
from crush_trio.cli.options import directory_option, json_option
from crush_trio.cli.output import say

_data_dir_option = click.option("--data-dir", metavar="DIR", help="The server's data directory.")


@click.group("config")
def command() -> None:
    """Show, check and trust the configuration."""


@command.command("show")
@directory_option
@_data_dir_option
@json_option
def show(*, cwd: str, data_dir: str | None, as_json: bool) -> None:
    """Print the configuration that counts in a directory, its files, and every limit."""
    from crush_trio.config.load import load_config
    from crush_trio.config.paths import data_directory
    from crush_trio.config.show import show_json, show_text

    directory = data_directory(os.environ, data_dir)
    config = load_config(Path(cwd), environ=os.environ, data_dir=directory)
    if as_json:
        import orjson

        say(orjson.dumps(show_json(config, data_directory=directory)).decode())
    else:
        say(show_text(config, data_directory=directory).rstrip("\n"))


@command.command("path")
@directory_option
@_data_dir_option
def path(*, cwd: str, data_dir: str | None) -> None:
    """Print where configuration, data and socket are, whether they exist or not."""
    from crush_trio.config.paths import (
        WORKSPACE_FILES,
        data_directory,
        extra_config_path,
        machine_config_path,
        trust_path,
        user_config_path,
    )
    from crush_trio.protocol.sockets import default_socket_path

    directory = data_directory(os.environ, data_dir)
    workspace = Path(cwd)
    for name, found in (
        ("user", user_config_path(os.environ)),
        ("extra", extra_config_path(os.environ)),
        *(("workspace", workspace / file) for file in WORKSPACE_FILES),
        ("set over HTTP", machine_config_path(directory, workspace)),
        ("trusted directories", trust_path(os.environ)),
        ("data", directory),
        ("socket", default_socket_path(directory, os.environ, os.getuid())),
    ):
        if found is not None:
            say(f"{name}: {found}")


@command.command("check")
@directory_option
@_data_dir_option
@json_option
def check(*, cwd: str, data_dir: str | None, as_json: bool) -> int:
    """Read the configuration as a run would; exit code 4 if it cannot be used.

    Commands in values are not run, and no provider is asked.
    """
    from crush_trio.config.check import check as checked
    from crush_trio.config.paths import data_directory
    from crush_trio.models.catalogue import FILE, load
    from crush_trio.tools.permission.names import finding_of

    directory = data_directory(os.environ, data_dir)
    known = load(directory / FILE).providers()
    usual = {provider.id: provider.key_variables for provider in known}
    found = checked(Path(cwd), environ=os.environ, data_dir=directory, usual=usual, rule=finding_of)
    if as_json:
        import orjson

        findings = [{"level": each.level, "text": each.text} for each in found.findings]
        say(orjson.dumps({"ok": found.ok, "findings": findings}).decode())
    else:
        for line in found.lines:
            say(line)
    return exit_codes.COMPLETED if found.ok else exit_codes.CONFIGURATION


@command.command("trust")
@click.argument("directory", metavar="[DIR]", default=".")
@click.option("--revoke", is_flag=True, help="Trust DIR no more.")
@click.option("--list", "listing", is_flag=True, help="List the trusted directories.")
@click.option("-y", "--yes", is_flag=True, help="Trust without being asked.")
@json_option
def trust(*, directory: str, revoke: bool, listing: bool, yes: bool, as_json: bool) -> int:
    """Let the configuration files of DIR [default: the current one] count in full.

    Shows what would begin to count, and asks. Trust ends when that part of the files changes.
    """
    from crush_trio.cli import trust_flow

    if as_json and not listing:
        raise click.UsageError("--json goes with --list.")
    if listing:
        return trust_flow.list_trusted(os.environ, as_json=as_json)
    if revoke:
        return trust_flow.revoke_trust(directory, os.environ)
    if not os.path.isdir(directory):
        raise click.UsageError(f"{directory!r} is not a directory.")
    return trust_flow.give_trust(Path(os.path.realpath(directory)), os.environ, yes=yes)


@command.command("schema")
def schema() -> None:
    """Print the JSON schema of a configuration file, as `crush-trio schema config` does."""
    import orjson

    from crush_trio.config.schema import config_json_schema

    say(orjson.dumps(config_json_schema(), option=orjson.OPT_INDENT_2).decode())
