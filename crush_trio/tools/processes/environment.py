"""What a tool process may see of the server's environment: a fixed list, and no secrets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

PASSED_ON: Final = frozenset(
    {
        "PATH",
        "HOME",
        "USER",
        "SHELL",
        "LANG",
        "TZ",
        "TERM",
        "TMPDIR",
        "VIRTUAL_ENV",
        "SSH_AUTH_SOCK",
    }
)
"""Names passed on as they are (contract 7)."""

PASSED_ON_PREFIXES: Final = ("LC_", "GIT_AUTHOR_", "GIT_COMMITTER_")

MARKERS: Final[Mapping[str, str]] = {
    "CRUSH_TRIO": "1",
    "AGENT": "crush-trio",
    "AI_AGENT": "crush-trio",
    "TERM": "xterm-256color",
    "EDITOR": "false",
    "GIT_EDITOR": "false",
    "PAGER": "cat",
    "GIT_PAGER": "cat",
}
"""Set for every tool (CW 7.3): who is calling, and nothing that would wait for a person."""

_DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"


def tool_environment(
    server_env: Mapping[str, str],
    extra: Mapping[str, str] | None = None,
    *,
    allow: Iterable[str] = (),
) -> dict[str, str]:
    """The whole environment of a tool process.

    Args:
        server_env: Where the listed names are looked up.
        extra: Set on top; the caller answers for it. It cannot take away the markers.
        allow: More names to pass on (``options.env_allow``).
    """
    names = PASSED_ON | frozenset(allow)
    passed = {
        name: value
        for name, value in server_env.items()
        if name in names or name.startswith(PASSED_ON_PREFIXES)
    }
    return {"PATH": _DEFAULT_PATH} | passed | dict(extra or {}) | dict(MARKERS)
