"""The check whether this machine can confine what runs start, and whether that is asked for."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from crush_trio.client.locate import Target
from crush_trio.config.load import load_config
from crush_trio.limits import SANDBOX_PROBE_S
from crush_trio.protocol.checks import Check
from crush_trio.protocol.errors import ConfigError
from crush_trio.tools.sandbox.confine import abi
from crush_trio.tools.sandbox.mechanism import VARIABLE, Found, find
from crush_trio.tools.sandbox.plan import Mechanism
from crush_trio.tools.sandbox.policy import settings_of


def sandbox(cwd: str, target: Target) -> Check:
    """What runs in ``cwd`` would be confined by; tries it, and blocks while it does."""
    found = find(os.environ.get(VARIABLE, ""))
    wanted = _configured(cwd, target)
    data = {
        "mode": wanted,
        "mechanism": found.mechanism.name if found.mechanism is not None else "",
        "reasons": list(found.reasons),
    }
    mode = f"{wanted} unless a run asks for another"
    if found.mechanism is None:
        seen = f"{mode}; none can be made here: {'; '.join(found.reasons)}"
        if wanted != "off":
            advice = "Until then runs are refused; options.sandbox off lets them run without one."
            return Check("sandbox", "fail", seen, advice, "sandbox_unavailable", data)
        return Check("sandbox", "warn", seen, "Without one, permissions alone hold.", data=data)
    seen = f"{mode}; made with {described(found.mechanism)}"
    if found.mechanism.name == "bubblewrap" or wanted == "off":
        return Check("sandbox", "ok", seen, data=data)
    return Check("sandbox", "warn", f"{seen}; {_why(found)}", _LESS, data=data)


_LESS = (
    "With bubblewrap (package bubblewrap) commands would also have a loopback network and /tmp of "
    "their own, and hidden files would not be there at all."
)


def described(mechanism: Mechanism) -> str:
    """A mechanism with its version."""
    if mechanism.name == "landlock":
        signals = "" if mechanism.abi >= 6 else ", which does not keep signals in"
        mounts = "" if mechanism.mounts else "; git's hooks in a workspace are not protected"
        return f"Landlock (version {mechanism.abi}{signals}) and a system call filter{mounts}"
    users = "a user namespace" if mechanism.new_user else "root's privileges"
    return f"{_version(mechanism.program)} ({users}; Landlock version {abi()} unused)"


def _version(program: str) -> str:
    try:
        done = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=SANDBOX_PROBE_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return "bubblewrap"
    return done.stdout.strip() or "bubblewrap"


def _why(found: Found) -> str:
    return "; ".join(found.reasons) or "nothing else was tried"


def _configured(cwd: str, target: Target) -> str:
    """The mode that applies where nobody names one; a wrong configuration is another check's."""
    try:
        config = load_config(Path(cwd), environ=os.environ, data_dir=target.data_dir)
        return settings_of(config.options.get("sandbox")).mode
    except ConfigError:
        return "off"
