"""``crush-trio serve`` as it is, with a clock in the scripted model.

    python ours.py --data-dir DIR --socket PATH [--join-bytes N]

Everything is the real server. The one addition: a script file whose name begins with ``stamped``
streams, instead of its text, the monotonic time in ns at which each piece is emitted, so that
whoever receives a piece can tell how long it was on its way, and the first piece tells when the
model was asked (it is emitted at once). Ends by SIGTERM, and with stdin.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from pathlib import Path

import trio

from crush_trio import limits
from crush_trio.agent.ports import Emit, ModelEvent, ModelRequest, StepEnd, TextDelta
from crush_trio.models.script import ScriptModel
from crush_trio.server.options import ServeOptions
from crush_trio.server.serve import serve

_play = ScriptModel.stream


async def stream_with_clock(model: ScriptModel, request: ModelRequest, emit: Emit) -> StepEnd:
    """`ScriptModel.stream`, whose texts are times if the file's name asks for it."""
    if not model._path.name.startswith("stamped"):
        return await _play(model, request, emit)

    def stamped(event: ModelEvent) -> None:
        emit(TextDelta(str(time.monotonic_ns())) if isinstance(event, TextDelta) else event)

    return await _play(model, request, stamped)


def end_with_stdin() -> None:
    """So that a server never outlives a benchmark that was killed."""
    while os.read(0, 1024):  # not `sys.stdin`, which the interpreter locks at its end
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--socket", required=True)
    parser.add_argument("--join-bytes", type=int, default=limits.FRAME_JOIN_BYTES)
    args = parser.parse_args()
    limits.FRAME_JOIN_BYTES = args.join_bytes
    ScriptModel.stream = stream_with_clock  # type: ignore[method-assign]
    threading.Thread(target=end_with_stdin, daemon=True).start()
    sys.exit(trio.run(serve, ServeOptions(args.data_dir, hosts=(f"unix://{args.socket}",))))


if __name__ == "__main__":
    main()
