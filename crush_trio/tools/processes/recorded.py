"""Ending the tool processes that a dead server had recorded, and no others (G2, G10)."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable

import trio

from crush_trio.limits import KILL_GRACE_S, KILL_TOTAL_S
from crush_trio.protocol.runs import LeftProcess, ProcessReport
from crush_trio.tools.processes import process_table

_LOOK_AGAIN_S = 0.1  # where a process cannot be waited for, or a new one may have appeared


async def kill_recorded(processes: Iterable[LeftProcess]) -> ProcessReport:
    """End what is still there of recorded processes, with everything below them.

    A pid whose start time differs is another process now and is not touched; what a dead
    launcher orphaned is found by the mark in its environment. TERM, 2 s, KILL; returns after
    3 s at most, or as soon as nothing is left. Cancelling it stops between two looks.

    Returns:
        ``started`` counts the processes that were looked for, ``killed`` those signalled,
        ``left`` names those alive all the same.
    """
    recorded = tuple(processes)
    began = trio.current_time()
    signalled: dict[int, LeftProcess] = {}
    killing = False
    while True:
        found = await trio.to_thread.run_sync(_tree_of, recorded)
        spent = trio.current_time() - began
        if not found or spent >= KILL_TOTAL_S:
            report = (len(recorded), len(signalled), found)
            return ProcessReport(started=report[0], killed=report[1], left=report[2])
        killing = spent >= KILL_GRACE_S
        for one in found:
            if not killing and signalled.get(one.pid) == one:
                continue
            process_table.send(one, signal.SIGKILL if killing else signal.SIGTERM)
            process_table.send(one, signal.SIGCONT)
            signalled[one.pid] = one
        limit = KILL_TOTAL_S if killing else KILL_GRACE_S
        await _wait_for_one(found[0], min(_LOOK_AGAIN_S, max(0.0, limit - spent)))


def _tree_of(recorded: tuple[LeftProcess, ...]) -> tuple[LeftProcess, ...]:
    """The recorded processes that are there, what is below them, and what they orphaned."""
    found: dict[int, LeftProcess] = {}
    for one in recorded:
        tree = process_table.marked(one.pid, one.started)
        if process_table.still_there((one,)):
            tree = (one, *process_table.descendants(one.pid), *tree)
        found.update((each.pid, each) for each in tree)
    found.pop(os.getpid(), None)
    return tuple(found.values())


async def _wait_for_one(process: LeftProcess, seconds: float) -> None:
    """Return when this process has ended, at the latest after ``seconds``."""
    if not process_table.HAS_PROC:
        await trio.sleep(seconds)
        return
    try:
        handle = os.pidfd_open(process.pid)
    except OSError:
        await trio.lowlevel.checkpoint()
        return
    try:
        with trio.move_on_after(seconds):
            await trio.lowlevel.wait_readable(handle)
    finally:
        os.close(handle)
