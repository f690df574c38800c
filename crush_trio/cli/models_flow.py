"""``models``: which there are and what they cost, and a newer list of them."""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

import trio

from crush_trio.cli import exit_codes
from crush_trio.cli.brought import bring_here
from crush_trio.cli.link import Link, linked
from crush_trio.cli.models_table import models_table, name_of, refreshed_text
from crush_trio.cli.options import ServerFlags
from crush_trio.cli.output import note, say, warn, write_lines
from crush_trio.cli.session_flow import workspace_id
from crush_trio.client.shapes import JsonObject, text
from crush_trio.protocol.errors import CrushError


class Wanted(NamedTuple):
    """Which models to list: part of a name, a provider, and also those that cannot be used."""

    part: str
    provider: str | None
    everything: bool

    def has(self, model: JsonObject) -> bool:
        """Whether a model is one of them, not asking whether it can be used."""
        if self.provider is not None and text(model, "provider") != self.provider:
            return False
        needle = self.part.casefold()
        return needle in name_of(model).casefold() or needle in text(model, "name").casefold()


async def list_models(flags: ServerFlags, cwd: str, wanted: Wanted, as_json: bool) -> int:
    """List the models that can be used in a directory, with the keys of this environment."""
    async with linked(flags) as link:
        known = [model for model in await _models(link, cwd) if wanted.has(model)]
    shown = [model for model in known if wanted.everything or model.get("available") is True]
    if as_json:
        await write_lines([shown])
        return 0
    found = models_table(shown)
    if found:
        say(found)
    more = len(known) - len(shown)
    if more:
        note(f"{more} more {'is' if more == 1 else 'are'} known: --all lists them, too")
    if not shown and not more:
        warn(_nothing(wanted))
    return 0 if shown else exit_codes.FAILED


def _nothing(wanted: Wanted) -> str:
    of_provider = "" if wanted.provider is None else f" of the provider {wanted.provider!r}"
    what = f"matches {wanted.part!r}" if wanted.part else "is known"
    return f"no model{of_provider} {what}"


async def _models(link: Link, cwd: str) -> list[JsonObject]:
    """With the workspace open as a run would have it, and let go again."""
    brought = await trio.to_thread.run_sync(bring_here, link.target, cwd)
    workspace = await workspace_id(link, cwd, brought)
    found = await link.api.models(workspace, brought.client_id)
    if brought.client_id is not None:
        with suppress(CrushError):  # then the hold ends by itself
            await link.api.release(workspace, brought.client_id)
    return found


async def refresh(flags: ServerFlags, url: str, as_json: bool) -> int:
    """Have the server fetch a newer list; an empty ``url`` leaves it to its configuration."""
    async with linked(flags) as link:
        answer = await link.api.refresh_models(url or None)
    if as_json:
        await write_lines([answer])
    else:
        say(refreshed_text(answer))
    return 0
