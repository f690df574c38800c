"""From a mode and the user's settings to what a run may touch: the lists, and how they combine."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from crush_trio.agent.ports import Sandbox
from crush_trio.protocol.errors import ConfigError
from crush_trio.protocol.requests import SANDBOX_MODES

SECRETS_AT_HOME: Final = (
    ".aws",
    ".azure",
    ".bash_history",
    ".cargo/credentials",
    ".cargo/credentials.toml",
    ".claude/.credentials.json",
    ".codex/auth.json",
    ".config/chromium",
    ".config/crush",
    ".config/crush-trio",
    ".config/gcloud",
    ".config/gh",
    ".config/git/credentials",
    ".config/glab-cli",
    ".config/google-chrome",
    ".config/op",
    ".config/rclone",
    ".docker/config.json",
    ".gem/credentials",
    ".gemini/oauth_creds.json",
    ".git-credentials",
    ".gnupg",
    ".kube",
    ".local/share/crush",
    ".local/share/crush-trio",
    ".local/share/keyrings",
    ".mozilla",
    ".netrc",
    ".npmrc",
    ".password-store",
    ".pgpass",
    ".psql_history",
    ".pypirc",
    ".python_history",
    ".ssh",
    ".terraform.d/credentials.tfrc.json",
    ".thunderbird",
    ".vault-token",
    ".zsh_history",
)
"""What holds keys, tokens, passwords or cookies, relative to the home directory."""

SECRETS_OF_THE_MACHINE: Final = (
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/ssl/private",
)
"""What root could read, for servers that run as root."""


@attrs.frozen
class Settings:
    """``options.sandbox`` of the configuration."""

    mode: str = "off"
    network: bool = False
    writable: tuple[str, ...] = ()


def settings_of(value: Any) -> Settings:
    """The settings from what the configuration says: nothing, a mode, or a table.

    Raises:
        ConfigError: One sentence.
    """
    table = value if isinstance(value, Mapping) else {"mode": value or "off"}
    mode = table.get("mode", "off")
    network = table.get("network", False)
    writable = table.get("writable", ())
    if mode not in SANDBOX_MODES:
        words = ", ".join(SANDBOX_MODES)
        raise ConfigError(f"$.options.sandbox: expected one of {words} as its mode.")
    if not isinstance(network, bool):
        raise ConfigError("$.options.sandbox.network: expected true or false.")
    if not isinstance(writable, list | tuple) or not all(map(_is_place, writable)):
        raise ConfigError("$.options.sandbox.writable: expected absolute paths, or ~/… ones.")
    return Settings(mode, network, tuple(writable))


def _is_place(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(("/", "~/")) and "\0" not in value


def sandbox_of(
    settings: Settings,
    requested: str | None,
    workspace: Path,
    *,
    home: Path,
    own: Iterable[Path],
    readable: Iterable[Path] = (),
) -> Sandbox | None:
    """What a run may touch; ``None`` for everything. Resolves paths, and blocks while it does.

    Args:
        settings: The user's; they say what is writable and whether there is a network.
        requested: The mode a request names; it counts before the configured one.
        workspace: Without symbolic links.
        home: Of the user, where secrets are.
        own: Directories of the server's: its data, its sockets.
        readable: Below them, what tools are to read, by absolute names that are found in it.
    """
    mode = settings.mode if requested is None else requested
    if mode == "off":
        return None
    writable: list[Path] = []
    if mode == "workspace-write":
        added = (home / path[2:] if path.startswith("~/") else path for path in settings.writable)
        writable = [workspace, *map(_real, added)]
    secrets = (*(home / name for name in SECRETS_AT_HOME), *map(Path, SECRETS_OF_THE_MACHINE))
    hidden = {_real(path) for path in (*secrets, *own)}
    return Sandbox(
        mode,
        workspace,
        tuple(dict.fromkeys(writable)),
        tuple(sorted(hidden)),
        tuple(dict.fromkeys(name for path in readable for name in (_real(path), Path(path)))),
        settings.network,
    )


def _real(path: Path | str) -> Path:
    return Path(os.path.realpath(path))
