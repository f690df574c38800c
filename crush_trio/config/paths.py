"""Where configuration and data live, computed from an environment that the caller passes in."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from crush_trio.protocol.errors import ConfigError

APP: Final = "crush-trio"
WORKSPACE_FILES: Final = ("crush.json", ".crush.json", ".crush-trio.json")
"""Configuration files of a workspace, lowest first (contract 8)."""
EXTRA_CONFIG: Final = "CRUSH_TRIO_CONFIG"
"""The variable that names one more file, above those."""


def data_directory(environ: Mapping[str, str], given: str | Path | None = None) -> Path:
    """The absolute data directory of a server; it need not exist.

    Args:
        environ: ``XDG_DATA_HOME`` counts if it is absolute, else ``HOME``.
        given: What ``--data-dir`` said; relative to the current directory.

    Raises:
        ConfigError: Nothing says where.
    """
    if given is not None and str(given):
        return Path(os.path.abspath(given))
    base = _base(environ, "XDG_DATA_HOME", ".local/share")
    if base is None:
        raise ConfigError(
            "There is no place for data: HOME is not set; set HOME or XDG_DATA_HOME to an"
            " absolute path, or give --data-dir."
        )
    return base / APP


def user_config_path(environ: Mapping[str, str]) -> Path | None:
    """The user's own configuration file, or ``None`` if the environment has no home."""
    base = _base(environ, "XDG_CONFIG_HOME", ".config")
    return None if base is None else base / APP / "config.json"


def trust_path(environ: Mapping[str, str]) -> Path | None:
    """The list of trusted directories, beside the user's own file; ``None`` without a home.

    One decision of one person, so it is not kept per server (docs/decisions/0016).
    """
    user = user_config_path(environ)
    return None if user is None else user.with_name("trust.json")


def machine_config_path(data_dir: Path, workspace: Path) -> Path:
    """The file that changes made over the API to one workspace go to, by its resolved path.

    It lies in the server's data directory: nothing is written into a repository (contract 5).
    """
    name = hashlib.sha256(os.fsencode(os.path.realpath(workspace))).hexdigest()[:32]
    return data_dir / "config" / f"{name}.json"


def other_extra_config(theirs: Mapping[str, str], ours: Mapping[str, str]) -> tuple[str, ...]:
    """What to tell a client that means another `EXTRA_CONFIG` than the server was started with."""
    meant, used = theirs.get(EXTRA_CONFIG), ours.get(EXTRA_CONFIG)
    if not meant or meant == used:
        return ()
    counts = f"with {used}" if used else "without one"
    return (
        f"{EXTRA_CONFIG} names {meant}, but the server was started {counts}: crush-trio stop, and "
        "run again.",
    )


def extra_config_path(environ: Mapping[str, str]) -> Path | None:
    """The file named by ``CRUSH_TRIO_CONFIG``, or ``None``.

    Raises:
        ConfigError: It is relative: client and server may stand in different directories.
    """
    named = environ.get(EXTRA_CONFIG, "")
    if not named:
        return None
    if not os.path.isabs(named):
        raise ConfigError("CRUSH_TRIO_CONFIG must be the absolute path of a file.")
    return Path(named)


def is_inside(workspace: Path, path: str | Path) -> bool:
    """Whether ``path`` (relative to the workspace, or absolute) stays inside it.

    Symlinks are followed. A name that some reader would expand (``~``, ``$``) counts as outside.
    """
    text = str(path)
    if text.startswith("~") or "$" in text or "\0" in text:
        return False
    try:
        root = Path(os.path.realpath(workspace))
        return Path(os.path.realpath(root / text)).is_relative_to(root)
    except OSError:  # a symlink that changes while it is followed
        return False


def _base(environ: Mapping[str, str], variable: str, below_home: str) -> Path | None:
    """An XDG base directory. A relative value is ignored, as its specification asks."""
    named = environ.get(variable, "")
    if os.path.isabs(named):
        return Path(named)
    home = environ.get("HOME", "")
    return Path(home) / below_home if os.path.isabs(home) else None
