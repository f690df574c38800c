"""How a server is started; the command line fills it in."""

from __future__ import annotations

from pathlib import Path

import attrs

from crush_trio import limits


@attrs.frozen
class ServeOptions:
    """Everything ``crush-trio serve`` can be told.

    ``hosts`` are ``unix:///…`` or ``tcp://HOST:PORT`` URLs; empty means the default socket of the
    data directory. ``idle_exit_s`` is ``None`` for never. Durations are in seconds.
    """

    data_dir: Path
    hosts: tuple[str, ...] = ()
    durability: str = "full"
    idle_exit_s: float | None = None
    idle_timeout_s: float = limits.IDLE_TIMEOUT_S
    shutdown_timeout_s: float = limits.SHUTDOWN_TIMEOUT_S
    requeue_within_s: float = limits.REQUEUE_WITHIN_S
    allow_script_models: bool = False
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    insecure_plaintext: bool = False
    token_file: Path | None = None
    verbose: bool = False
