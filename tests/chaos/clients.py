"""Clients that prompt, steer, interrupt, cancel, drop, edit and delete at random."""

from __future__ import annotations

import random
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from tests.chaos import models
from tests.chaos.history import Cancel, Deletion, Edit, History, Prompt, now_ms
from tests.chaos.server import ChaosServer, Unanswered

KINDS = ("quick", "slow", "hold", "tools", "hostile", "break")
WEIGHTS = (40, 15, 12, 20, 5, 8)
AGAIN = 3
"""How often a prompt without an answer is posted again."""


@attrs.define(eq=False)
class Clients:
    """Several threads, each with a random source of its own.

    ``up`` is set while the server is believed to answer, ``over`` when there is nothing to do
    any more; ``deletes`` says whether sessions of a workspace may be deleted.
    """

    server: ChaosServer
    history: History
    seed: int
    models: dict[str, str]
    up: threading.Event = attrs.field(factory=threading.Event)
    over: threading.Event = attrs.field(factory=threading.Event)
    threads: list[threading.Thread] = attrs.field(factory=list)
    _numbers: Any = attrs.field(factory=lambda: iter(range(10**9)))

    def start(self, workspace: str, *, deletes: bool, threads: int = 2) -> None:
        """Begin to work in a workspace."""
        for number in range(threads):
            name = f"{workspace}/{number}"
            dice = random.Random(f"{self.seed}/{'d' if deletes else 'k'}{number}")
            self._begin(self._work, (workspace, dice, deletes), name)

    def _begin(self, work: Callable[..., None], arguments: tuple[Any, ...], name: str) -> None:
        def guarded() -> None:
            try:
                work(*arguments)
            except Exception:
                self.history.violation(f"client {name} broke: {traceback.format_exc()}")

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        thread.start()
        self.threads.append(thread)

    def join(self) -> None:
        """Wait for all threads; ``over`` has been set."""
        for thread in self.threads:
            thread.join(60)
            if thread.is_alive():
                self.history.violation(f"a request of {thread.name} was never answered")

    def purges(self, parent: Path) -> None:
        """Begin to make workspaces below a directory and to purge them again."""
        dice = random.Random(f"{self.seed}/p")
        self._begin(self._purge, (parent, dice), "purge")

    # --- one thread -----------------------------------------------------------------------

    def _work(self, workspace: str, dice: random.Random, deletes: bool) -> None:
        again: list[Prompt] = []
        steps = (
            (45, lambda: self._prompt(workspace, dice, again)),
            (15, lambda: self._cancel_run(workspace, dice)),
            (7, lambda: self._cancel_session(workspace, dice)),
            (5, lambda: self._drop(workspace, dice)),
            (6, lambda: self._edit(workspace, dice)),
            (5, lambda: self._new_session(workspace)),
            (12, lambda: self._repeat(again)),
            (3 if deletes else 0, lambda: self._delete(workspace, dice)),
        )
        while not self.over.is_set():
            if not self.up.wait(0.05):
                continue
            if not self.history.sessions.get(workspace):
                step = self._new_session_step(workspace)
            else:
                step = dice.choices([s for _, s in steps], [w for w, _ in steps])[0]
            try:
                step()
            except Unanswered:
                self.history.count("unanswered requests")
                self.over.wait(0.02)
            self.over.wait(dice.expovariate(1 / 0.03))

    def _new_session_step(self, workspace: str) -> Any:
        return lambda: self._new_session(workspace)

    def _session(self, workspace: str, dice: random.Random) -> str:
        return dice.choice(self.history.sessions[workspace][-3:])

    def _new_session(self, workspace: str) -> None:
        status, value = self.server.call(
            "POST", f"/v1/workspaces/{workspace}/sessions", {"title": "chaos"}
        )
        if status == 200:
            self.history.sessions.setdefault(workspace, []).append(value["id"])

    def _prompt(self, workspace: str, dice: random.Random, again: list[Prompt]) -> None:
        session = self._session(workspace, dice)
        kind = dice.choices(KINDS, WEIGHTS)[0]
        number = next(self._numbers)
        run_id = f"run-{self.seed}-{number}" if dice.random() < 0.8 else None
        body: dict[str, Any] = {
            "session_id": session,
            "prompt": f"prompt {number} of {self.seed}",
            "model": self.models[kind],
            "permission_mode": "allow",
        }
        if run_id is not None:
            body["run_id"] = run_id
        if dice.random() < 0.6:
            body["if_busy"] = dice.choices(
                ("enqueue", "steer", "interrupt", "reject"), (40, 35, 20, 5)
            )[0]
        if kind in ("hold", "hostile") and dice.random() < 0.5:
            body["limits"] = {"timeout_s": 1}
        prompt = Prompt(workspace, session, body, run_id, kind)
        self.history.prompts.append(prompt)
        if run_id is not None:
            again.append(prompt)
        self.post(prompt)

    def post(self, prompt: Prompt) -> None:
        """Post a prompt, for the first time or again, and note what came of it.

        Raises:
            Unanswered: No answer came.
        """
        path = f"/v1/workspaces/{prompt.workspace}/agent"
        try:
            status, value = self.server.call("POST", path, prompt.body)
        except Unanswered:
            prompt.unanswered += 1
            raise
        if status == 202:
            prompt.answered_ms = prompt.answered_ms or now_ms()
            prompt.receipts.append(value)
            self.history.count("prompts accepted")
        else:
            prompt.refusals.append({"status": status, **(value or {})})
            self.history.count("prompts refused")

    def _repeat(self, again: list[Prompt]) -> None:
        while again:
            prompt = again.pop(0)
            if prompt.unanswered and prompt.unanswered <= AGAIN:
                self.history.count("prompts posted again")
                again.append(prompt)
                self.post(prompt)
                again.remove(prompt)
                return

    # --- cancelling, editing, deleting ----------------------------------------------------

    def _known_run(self, workspace: str, dice: random.Random) -> tuple[str, str] | None:
        here = [
            (p.session, str(p.receipts[0]["run_id"] if p.accepted else p.run_id))
            for p in self.history.prompts[-40:]
            if p.workspace == workspace and (p.accepted or p.run_id)
        ]
        return dice.choice(here[-10:]) if here else None

    def _cancel(self, cancel: Cancel, method: str, path: str) -> None:
        self.history.cancels.append(cancel)
        status, value = self.server.call(method, path, {} if method == "POST" else None)
        cancel.answered_ms = now_ms()
        if status == 200:
            cancel.receipt = value
            self.history.count("cancels answered")
            self.history.count("runs named cancelled", len(value["runs"]))
        else:
            cancel.refusal = {"status": status, **(value or {})}

    def _cancel_run(self, workspace: str, dice: random.Random) -> None:
        found = self._known_run(workspace, dice)
        if found is not None:
            session, run_id = found
            cancel = Cancel("run", workspace, session, run_id)
            self._cancel(cancel, "POST", f"/v1/runs/{run_id}/cancel")

    def _cancel_session(self, workspace: str, dice: random.Random) -> None:
        session = self._session(workspace, dice)
        base = f"/v1/workspaces/{workspace}/agent/sessions/{session}"
        if dice.random() < 0.3:
            self._cancel(Cancel("clear", workspace, session), "POST", f"{base}/prompts/clear")
        else:
            self._cancel(Cancel("session", workspace, session), "POST", f"{base}/cancel")

    def cancel_all(self, workspace: str, session: str) -> None:
        """Cancel a session's open runs."""
        path = f"/v1/workspaces/{workspace}/agent/sessions/{session}/cancel"
        self._cancel(Cancel("session", workspace, session), "POST", path)

    def _drop(self, workspace: str, dice: random.Random) -> None:
        found = self._known_run(workspace, dice)
        if found is not None:
            session, run_id = found
            cancel = Cancel("drop", workspace, session, run_id)
            self._cancel(cancel, "DELETE", f"/v1/runs/{run_id}")

    def _edit(self, workspace: str, dice: random.Random) -> None:
        found = self._known_run(workspace, dice)
        if found is None:
            return
        edit = Edit(found[1], f"edited {next(self._numbers)}")
        self.history.edits.append(edit)
        status, _ = self.server.call("PATCH", f"/v1/runs/{edit.run_id}", {"prompt": edit.text})
        edit.answered = status == 200
        if edit.answered:
            self.history.count("edits answered")

    def _delete(self, workspace: str, dice: random.Random) -> None:
        sessions = self.history.sessions[workspace]
        session = dice.choice(sessions)
        deletion = Deletion("session", session)
        self.history.deletions.append(deletion)
        path = f"/v1/workspaces/{workspace}/sessions/{session}"
        deletion.status = self.server.call("DELETE", path)[0]
        if deletion.status == 200:
            self.history.count("sessions deleted")
            self.history.sessions[workspace] = [s for s in sessions if s != session]

    def _purge(self, parent: Path, dice: random.Random) -> None:
        number = 0
        while not self.over.is_set():
            if not self.up.wait(0.05):
                continue
            number += 1
            place = parent / f"victim{number}"
            place.mkdir(exist_ok=True)
            try:
                self._purge_one(place)
            except Unanswered:
                self.history.count("unanswered requests")
            self.over.wait(dice.uniform(0.1, 1.0))

    def _purge_one(self, place: Path) -> None:
        status, made = self.server.call("POST", "/v1/workspaces", {"path": str(place)})
        if status != 200:
            return
        workspace = made["id"]
        base = f"/v1/workspaces/{workspace}"
        status, session = self.server.call("POST", f"{base}/sessions", {"title": "victim"})
        if status != 200:
            return
        body = {"session_id": session["id"], "prompt": "go", "model": self.models["quick"]}
        status, receipt = self.server.call("POST", f"{base}/agent", body)
        if status != 202:
            return
        self.server.call("GET", f"/v1/runs/{receipt['run_id']}?wait=5")
        deletion = Deletion("workspace", workspace)
        self.history.deletions.append(deletion)
        deletion.status = self.server.call("DELETE", f"{base}?purge=true")[0]
        if deletion.status == 200:
            self.history.count("workspaces purged")


def model_names(home: Path) -> dict[str, str]:
    """The script models, written to ``home``."""
    return models.write(home)
