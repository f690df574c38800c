"""``crush-trio schema``: JSON schemas for editors and for programs that read our output."""

from __future__ import annotations

from importlib import resources

import click

from crush_trio.cli.output import say

_FILES = {
    "script": ("crush_trio.models", "script.schema.json"),
    "events": ("crush_trio.cli", "events.schema.json"),
}


@click.command("schema")
@click.argument("which", type=click.Choice(("config", *_FILES)), default="config")
def command(*, which: str) -> None:
    """Print the JSON schema of configuration files, script files, or stream-json lines."""
    if which == "config":
        import orjson

        from crush_trio.config.schema import config_json_schema

        say(orjson.dumps(config_json_schema(), option=orjson.OPT_INDENT_2).decode())
        return
    package, name = _FILES[which]
    say(resources.files(package).joinpath(name).read_text("utf-8").rstrip("\n"))
