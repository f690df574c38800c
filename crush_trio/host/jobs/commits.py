"""The commits of a background job's life, as plain functions on a transaction.

A job's events name its session but no run: they may come after the last event of the run that
started it (G1, G10). What is not stored any more, because its session was deleted, is passed over.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from crush_trio.protocol.jobs import JobRecord, JobState
from crush_trio.protocol.runs import LeftProcess
from crush_trio.store.contract import Commit, JobRow, Transaction


def started(row: JobRow) -> Commit[None]:
    """Its process is there. Only a listed job is published; of others recovery has to know."""

    def commit(tx: Transaction) -> None:
        if tx.session(row.record.session_id) is not None:
            tx.put_job(row)
            if row.listed:
                _emit(tx, "created", row.record)

    return commit


def kept(row: JobRow) -> Commit[None]:
    """A command in the foreground becomes a background job."""
    return started(attrs.evolve(row, listed=True))


def ended(row: JobRow) -> Commit[None]:
    """Nothing of it is left but what its record names."""

    def commit(tx: Transaction) -> None:
        if tx.session(row.record.session_id) is not None:
            tx.put_job(row)
            _emit(tx, "updated", row.record)

    return commit


def forgotten(records: Iterable[JobRecord], *, listed: bool) -> Commit[None]:
    """Remove jobs; who was told of them is told of that."""
    gone = tuple(records)

    def commit(tx: Transaction) -> None:
        for record in gone:
            tx.remove_job(record.job_id)
            if listed and tx.session(record.session_id) is not None:
                _emit(tx, "deleted", record)

    return commit


def lost(row: JobRow, left: tuple[LeftProcess, ...]) -> Commit[None]:
    """Its server died; recovery has ended its processes but for ``left``."""
    mine = {process.pid for process in row.processes}

    def commit(tx: Transaction) -> None:
        if not row.listed:
            tx.remove_job(row.record.job_id)
            return
        record = attrs.evolve(
            row.record,
            state=JobState.LOST,
            ended_at_ms=tx.now_ms,
            left=tuple(process for process in left if process.pid in mine),
        )
        ended(attrs.evolve(row, record=record, processes=()))(tx)

    return commit


def _emit(tx: Transaction, change: str, record: JobRecord) -> None:
    tx.emit("job", change, record, session_id=record.session_id)
