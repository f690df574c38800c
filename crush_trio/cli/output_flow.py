"""``crush-trio session output`` at work."""

from __future__ import annotations

import codecs

from crush_trio.cli.link import linked
from crush_trio.cli.options import ServerFlags
from crush_trio.cli.output import stdout_is_terminal, write_stdout
from crush_trio.cli.sanitize import for_terminal
from crush_trio.cli.session_flow import find_session, workspace_id
from crush_trio.client.shapes import text


async def print_output(flags: ServerFlags, cwd: str, wanted: str, output: str) -> int:
    """A kept output, piece by piece: its bytes, or on a terminal what is harmless of them."""
    for_person = stdout_is_terminal()
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    line = ""  # of text for a person, whole lines are printed: a sequence may be cut in two
    async with linked(flags) as link:
        workspace = await workspace_id(link, cwd)
        session = text(await find_session(link, workspace, wanted), "id")
        at = 0
        while data := await link.api.output_piece(workspace, session, output, at):
            at += len(data)
            if for_person:
                lines, end, line = (line + decoder.decode(data)).rpartition("\n")
                data = for_terminal(lines + end).encode()
            await write_stdout(data)
    await write_stdout(for_terminal(line + decoder.decode(b"", final=True)).encode())
    return 0
