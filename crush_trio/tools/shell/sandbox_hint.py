"""What a command that met the edge of its sandbox says of it, so that nobody looks elsewhere."""

from __future__ import annotations

import re
from typing import Final

from crush_trio.agent.ports import Sandbox, ShellResult

_WRITING: Final = (
    "Read-only file system",
    "Permission denied",
    "Operation not permitted",
    "Device or resource busy",
    r"\bE(?:ROFS|ACCES|PERM|BUSY)\b",
)
"""How programs name EROFS, EACCES, EPERM, and EBUSY of a mount point that is to be replaced."""

_NETWORK: Final = (
    "[Cc]ould not resolve",
    "[Nn]ame resolution",
    "Name or service not known",
    "no such host",
    "[Nn]etwork is unreachable",
    "Connection refused",
    "(?:[Cc]ouldn't|[Ff]ailed to|[Cc]ould not) connect",
    "Address family not supported",
    r"\bE(?:AI_AGAIN|NOTFOUND|NETUNREACH|CONNREFUSED|AFNOSUPPORT)\b",
)
"""How programs say that there is no network, with a loopback interface alone or no sockets."""

_SIGNS: Final = re.compile("|".join(_WRITING))
_NETWORK_SIGNS: Final = re.compile("|".join(_NETWORK))


def sandbox_hint(result: ShellResult, sandbox: Sandbox | None) -> str:
    """A sentence for a result that shows signs of the sandbox, or nothing.

    Both streams count, whatever the exit code: a pipe or a ``;`` hides it. A program can mean
    something else by the same words, so the sentence says what holds and leaves the rest open.
    """
    if sandbox is None:
        return ""
    said = f"{result.stdout}\n{result.stderr}"
    offline = not sandbox.network and _NETWORK_SIGNS.search(said) is not None
    if not offline and _SIGNS.search(said) is None:
        return ""
    if sandbox.mode == "workspace-write":
        places = ", ".join(map(str, sandbox.writable))
        holds = f"it could write in {places} and temporary files, not to protected files"
        more = ["options.sandbox.writable"]
    else:
        holds = "it could write temporary files only"
        more = ["--sandbox workspace-write"]
    if not sandbox.network:
        holds += ", and had no network"
        more.append("options.sandbox.network")
    return (
        f"(This command ran in the sandbox {sandbox.mode}: {holds}. If that stopped it, say so "
        f"and do not work around it; whoever started the run can allow more: {', '.join(more)}.)"
    )
