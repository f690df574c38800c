"""What must hold at the end, from what clients saw and what the server and its files say now."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs

from tests.chaos import models
from tests.chaos.history import Cancel, History, Json, Prompt
from tests.chaos.server import ChaosServer, Unanswered
from tests.chaos.subscriber import Seen, Subscriber, replay

REASONS = {"user", "drop", "interrupt", "session", "shutdown"}


@attrs.define(eq=False)
class Checker:
    """Compares a history with a server that is up and has nothing open any more."""

    server: ChaosServer
    history: History
    records: dict[str, Json] = attrs.field(factory=dict)
    logs: dict[str, list[Seen]] = attrs.field(factory=dict)
    alive: set[str] = attrs.field(factory=set)
    """The sessions that exist."""

    def wrong(self, text: str) -> None:
        """A guarantee was broken."""
        self.history.violation(text)

    def check(self, subscribers: Iterable[Subscriber]) -> None:
        """All of it, through requests."""
        for subscriber in subscribers:
            alive = self._read(subscriber.workspace)
            self.alive |= alive
            self._subscriber(subscriber)
            self._endings(subscriber.workspace)
            for session in alive:
                self._transcript(subscriber.workspace, session)
        self._prompts()
        self._cancels()
        self._edits()
        self._order()
        self._deletions()
        self._repeats()

    def _get(self, path: str) -> Any:
        status, value = self.server.call("GET", path)
        return value if status == 200 else None

    def _read(self, workspace: str) -> set[str]:
        """Take in a workspace's runs and log; the sessions that exist."""
        before = ""
        while True:
            page = self._get(f"/v1/runs?workspace_id={workspace}&limit=500{before}")["runs"]
            self.records.update((record["id"], record) for record in page)
            if len(page) < 500:
                break
            before = f"&before={page[-1]['id']}"
        self.logs[workspace] = replay(self.server, workspace)
        listed = self._get(f"/v1/workspaces/{workspace}/sessions")
        return {session["id"] for session in listed}

    # --- events ---------------------------------------------------------------------------

    def _subscriber(self, subscriber: Subscriber) -> None:
        """Whoever kept a cursor over all restarts has what a fresh replay gives, and no more."""
        stored = {event.seq: event for event in self.logs[subscriber.workspace]}
        seen = {event.seq: event for event in subscriber.events}
        self.history.count("events seen", len(seen))
        if subscriber.strict and list(stored) != list(range(1, len(stored) + 1)):
            self.wrong(f"the log of {subscriber.workspace} has gaps")
        for seq, event in stored.items():
            known = seen.get(seq)
            if known is None:
                self.wrong(f"event {seq} ({event.kind}) never reached the subscriber")
            elif known.digest != event.digest:
                self.wrong(f"event {seq} was {known} and is now {event}")
        deleted = {d.id for d in self.history.deletions}
        for seq, event in seen.items():
            if seq not in stored and event.session_id not in deleted:
                self.wrong(f"event {seq} ({event.kind}, {event.session_id}) is gone from the log")

    def _endings(self, workspace: str) -> None:
        """One `run_complete` per run, its last event; nothing begins twice."""
        last: dict[str, Seen] = {}
        ends: Counter[str] = Counter()
        begun: dict[str, int] = {}
        for event in self.logs[workspace]:
            if not event.run_id:
                continue
            last[event.run_id] = event
            if event.kind == "run_complete":
                ends[event.run_id] += 1
            started = event.payload.get("started_at_ms") if event.kind == "run" else None
            if started and begun.setdefault(event.run_id, started) != started:
                self.wrong(f"run {event.run_id} began twice")
        for run_id, record in self.records.items():
            if record["workspace_id"] != workspace or record.get("deleted"):
                continue
            if record["state"] != "finished":
                self.wrong(f"run {run_id} has not ended: {record}")
            elif ends[run_id] != 1 or last[run_id].kind != "run_complete":
                self.wrong(f"run {run_id} has {ends[run_id]} endings, last {last.get(run_id)}")
            elif last[run_id].seq != record["last_seq"]:
                self.wrong(f"run {run_id} says last_seq {record['last_seq']}: {last[run_id]}")
            else:
                self.history.count(f"runs {record['outcome']}")

    # --- prompts --------------------------------------------------------------------------

    def _prompts(self) -> None:
        sent = {prompt.body["prompt"] for prompt in self.history.prompts}
        sent |= {edit.text for edit in self.history.edits}
        for prompt in self.history.prompts:
            self._prompt(prompt)
        for run_id, record in self.records.items():
            if record["prompt"] not in sent and not record.get("deleted"):
                self.wrong(f"nobody sent the prompt of run {run_id}: {record['prompt']!r}")
        texts = Counter(
            r["prompt"] for r in self.records.values() if r["prompt"] and not r.get("deleted")
        )
        for text, times in texts.items():
            if times > 1:
                self.wrong(f"{times} runs have the prompt {text!r}")

    def _prompt(self, prompt: Prompt) -> None:
        if any(receipt != prompt.receipts[0] for receipt in prompt.receipts):
            self.wrong(f"one run id, different receipts: {prompt.receipts}")
        for refusal in prompt.refusals:
            if refusal.get("code") in ("run_id_conflict", "internal") or refusal["status"] == 500:
                self.wrong(f"a prompt was refused: {refusal}")
        run_id = prompt.receipts[0]["run_id"] if prompt.accepted else prompt.run_id
        record = self.records.get(run_id or "")
        if record is None:
            if prompt.accepted:
                self.wrong(f"the accepted prompt {run_id} is lost")
            return
        if not prompt.accepted and not prompt.unanswered:
            self.wrong(f"the refused prompt {run_id} has a run: {prompt.refusals}")
        if record.get("deleted"):
            return
        quick = record["outcome"] == "completed" and prompt.kind == "quick"
        if quick and record["text"] != models.QUICK_TEXT:
            self.wrong(f"run {run_id} completed with {record['text']!r}")
        if record["outcome"] == "completed" and prompt.kind in ("hold", "hostile"):
            self.wrong(f"run {run_id} cannot have completed: {record}")

    # --- cancels --------------------------------------------------------------------------

    def _cancels(self) -> None:
        """G2, G4: a cancel that was answered holds; what ended cancelled was cancelled."""
        for cancel in self.history.cancels:
            if cancel.refusal is not None and cancel.refusal["status"] in (500, 507):
                self.wrong(f"a cancel was refused: {cancel.refusal}")
            if cancel.receipt is not None:
                self._cancel(cancel, cancel.receipt)
        for run_id, record in self.records.items():
            if record["outcome"] == "cancelled" and not record.get("deleted"):
                self._cause(run_id, record)

    def _cancel(self, cancel: Cancel, receipt: Json) -> None:
        named = {run["run_id"]: run["was"] for run in receipt["runs"]}
        for run_id, was in named.items():
            record = self.records.get(run_id)
            if record is None:
                self.wrong(f"the cancelled run {run_id} is not stored")
            elif was == "queued":
                if record["outcome"] != "cancelled" or record["started_at_ms"]:
                    self.wrong(f"run {run_id} was cancelled while queued, and is {record}")
            elif record["outcome"] not in ("cancelled", "failed"):
                self.wrong(f"run {run_id} was cancelled while running, and is {record}")
        if cancel.how == "session" and cancel.answered_ms is not None:
            self._complete(cancel, {*named, *receipt["too_late"]})

    def _complete(self, cancel: Cancel, named: set[str]) -> None:
        """A session's cancel covers every run that was known to be accepted before it."""
        for prompt in self.history.prompts:
            if prompt.session != cancel.session or not prompt.accepted:
                continue
            record = self.records.get(prompt.receipts[0]["run_id"])
            before = (prompt.answered_ms or cancel.sent_ms) < cancel.sent_ms
            if not before or record is None or record["id"] in named:
                continue
            if record["finished_at_ms"] > (cancel.answered_ms or 0) + 2:
                self.wrong(f"a cancel of its session did not cover {record['id']}: {record}")

    def _cause(self, run_id: str, record: Json) -> None:
        by = record["cancelled_by"]
        if by is None or by["reason"] not in REASONS:
            self.wrong(f"run {run_id} was cancelled by nobody we know: {by}")
        elif by["reason"] in ("user", "drop"):
            asked = any(
                cancel.run_id == run_id
                or (cancel.run_id is None and cancel.session == record["session_id"])
                for cancel in self.history.cancels
            )
            if not asked:
                self.wrong(f"nobody asked to cancel run {run_id}: {record}")

    def _edits(self) -> None:
        """An edit that was answered is still so, unless a later one may have been made."""
        for index, edit in enumerate(self.history.edits):
            later = self.history.edits[index + 1 :]
            record = self.records.get(edit.run_id)
            if not edit.answered or record is None or record.get("deleted"):
                continue
            if any(e.run_id == edit.run_id and e.answered is not False for e in later):
                continue
            if record["prompt"] != edit.text:
                self.wrong(f"the edit of {edit.run_id} to {edit.text!r} is lost: {record}")

    def _order(self) -> None:
        """G5: what began in a session began in the order of acceptance."""
        by_session: dict[str, list[Json]] = {}
        for record in self.records.values():
            if record["started_at_ms"] and record["outcome"] != "steered":
                by_session.setdefault(record["session_id"], []).append(record)
        for session, records in by_session.items():
            records.sort(key=lambda record: int(record["accept_seq"]))
            starts = [record["started_at_ms"] for record in records]
            if starts != sorted(starts):
                self.wrong(f"runs of session {session} did not begin in order: {records}")

    # --- transcripts ----------------------------------------------------------------------

    def _transcript(self, workspace: str, session: str) -> None:
        messages = self._get(f"/v1/workspaces/{workspace}/sessions/{session}/messages")
        if messages is None:
            self.wrong(f"session {session} is listed and has no transcript")
            return
        open_calls: list[str] = []
        runs: set[str] = set()
        for message in messages:
            runs.add(message["run_id"])
            parts = [(part["type"], part["data"]) for part in message["parts"]]
            if message["role"] == "assistant":
                if open_calls:
                    self.wrong(f"session {session}: calls without results: {open_calls}")
                open_calls = [data["id"] for kind, data in parts if kind == "tool_call"]
                if not any(kind == "finish" for kind, _ in parts):
                    self.wrong(f"session {session}: an open message stayed: {message}")
            for kind, data in parts:
                if kind == "tool_result":
                    if data["tool_call_id"] in open_calls:
                        open_calls.remove(data["tool_call_id"])
                    else:
                        self.wrong(f"session {session}: a result without a call: {data}")
            if message["role"] == "user" and open_calls:
                self.wrong(f"session {session}: a prompt between call and result: {message}")
        if open_calls:
            self.wrong(f"session {session}: calls without results at the end: {open_calls}")
        self.history.count("transcripts checked")
        for record in self.records.values():
            if record["session_id"] == session and record["id"] not in runs:
                self.wrong(f"session {session} has no message of run {record['id']}: {record}")

    # --- deletions and repeats ------------------------------------------------------------

    def _deletions(self) -> None:
        known = {w["id"] for w in self._get("/v1/workspaces?known=true")}
        for deletion in self.history.deletions:
            if deletion.what == "workspace":
                if deletion.status == 200 and deletion.id in known:
                    self.wrong(f"the purged workspace {deletion.id} is back")
            elif deletion.status == 200 and deletion.id in self.alive:
                self.wrong(f"the deleted session {deletion.id} is back")
        for run_id, record in self.records.items():
            if bool(record.get("deleted")) == (record["session_id"] in self.alive):
                self.wrong(f"half deleted: {run_id} in {record['session_id']}: {record}")

    def _repeats(self) -> None:
        """G3: the same request gets the same answer, and nothing starts."""
        seqs = {w: self._get(f"/v1/workspaces/{w}/snapshot")["seq"] for w in self.logs}
        for prompt in [p for p in self.history.prompts if p.run_id and p.accepted][-60:]:
            record = self.records.get(prompt.run_id or "")
            if record is None:
                continue
            try:
                status, value = self.server.call(
                    "POST", f"/v1/workspaces/{prompt.workspace}/agent", prompt.body
                )
            except Unanswered as exc:
                self.wrong(f"posting {prompt.run_id} again: {exc}")
                continue
            self.history.count("receipts asked again")
            if status != 202 or value != prompt.receipts[0]:
                self.wrong(f"{prompt.run_id} again: {status} {value}, was {prompt.receipts[0]}")
            other = {**prompt.body, "prompt": "something else"}
            status, value = self.server.call(
                "POST", f"/v1/workspaces/{prompt.workspace}/agent", other
            )
            if status != 409 or value["code"] != "run_id_conflict":
                self.wrong(f"{prompt.run_id} with another body: {status} {value}")
        for workspace, seq in seqs.items():
            if self._get(f"/v1/workspaces/{workspace}/snapshot")["seq"] != seq:
                self.wrong(f"asking for receipts again changed {workspace}")


def check_files(server: ChaosServer, history: History) -> None:
    """After an orderly end: the database is whole, and nothing lies around."""
    names = {path.name for path in server.data.iterdir()}
    allowed = {"crush.db", "lock", "server.log", "access.log", "outputs"}
    allowed |= {"crush.db-wal", "crush.db-shm"}
    extra = {name for name in names - allowed if not name.startswith(("server.log", "access.log"))}
    if extra:
        history.violation(f"files were left in the data directory: {sorted(extra)}")
    wal = server.data / "crush.db-wal"
    if wal.exists() and wal.stat().st_size:
        history.violation("the write-ahead log was not folded in at an orderly end")
    if server.socket.exists():
        history.violation("the socket was left")
    with sqlite3.connect(server.data / "crush.db") as conn:
        for pragma in ("integrity_check", "foreign_key_check"):
            found = conn.execute(f"PRAGMA {pragma}").fetchall()
            if found not in ([], [("ok",)]):
                history.violation(f"{pragma}: {found[:3]}")
        _check_rows(conn, server.data / "outputs", history)
    conn.close()
    for name in ("server.log", "stderr"):
        path = (server.data if name == "server.log" else server.home) / name
        text = path.read_text("utf-8", "replace") if path.exists() else ""
        if "Traceback" in text:
            at = text.index("Traceback")
            history.violation(f"{name} has a traceback: {text[at : at + 1500]}")


def _check_rows(conn: sqlite3.Connection, outputs: Path, history: History) -> None:
    half = conn.execute(
        "SELECT workspace_id, seq, kind FROM events e WHERE session_id IS NOT NULL AND NOT EXISTS"
        " (SELECT 1 FROM sessions s WHERE s.id = e.session_id) AND kind <> 'session'"
    ).fetchall()
    rows = {
        row[0]: json.loads(row[1]) for row in conn.execute("SELECT id, record FROM runs").fetchall()
    }
    deleted = {run for run, record in rows.items() if record.get("deleted")}
    for run in deleted:
        if rows[run].get("prompt") or rows[run].get("text"):
            history.violation(f"the tombstone of run {run} kept its texts")
    history.count("events of deleted sessions", len(half))
    sessions = {row[0] for row in conn.execute("SELECT id FROM sessions")}
    if outputs.exists():
        for folder in outputs.glob("*/*"):
            if folder.name not in sessions:
                history.violation(f"outputs of a deleted session were left: {folder}")
