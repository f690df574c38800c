"""A small part of what `scripts/chaos` does for hours: a few lives of one server in each mode."""

from __future__ import annotations

import shutil

import pytest

from tests.chaos.episode import Episode
from tests.chaos.history import Cancel, Prompt
from tests.chaos.subscriber import Seen

LIVES = 3


@pytest.mark.parametrize(("mode", "seed"), [("random", 11), ("syscall", 12)])
def test_a_server_that_dies_again_and_again_keeps_every_promise(mode: str, seed: int) -> None:
    """G1, G2, G3, G4, G7, G8, G10, G11, as clients saw it and as it is afterwards."""
    episode = Episode(seed, mode, LIVES, fork=True)
    assert episode.run(), (episode.home, episode.history.violations)
    assert episode.history.counts["restarts"] == LIVES
    assert episode.history.counts["prompts accepted"] > 3
    assert episode.history.counts["events seen"] > 50


def test_a_broken_promise_would_be_seen() -> None:
    """What the checker says of a history that this server cannot have had."""
    episode = Episode(14, "random", 1, fork=True)
    lost = Prompt("w", "s", {"prompt": "never stored"}, "lost", "quick", answered_ms=1.0)
    lost.receipts.append({"run_id": "lost"})
    episode.history.prompts.append(lost)
    receipt = {"runs": [{"run_id": "gone", "was": "queued"}], "too_late": []}
    episode.history.cancels.append(Cancel("run", "w", "s", "gone", receipt=receipt))
    forged = Seen(10**6, "run_complete", "lost", "", "0")
    catch_up = Episode._catch_up

    def forge(self: Episode) -> None:
        catch_up(self)
        self.subscribers[0].events.append(forged)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Episode, "_catch_up", forge)
        assert not episode.run()
    shutil.rmtree(episode.home)
    said = "\n".join(episode.history.violations)
    assert "the accepted prompt lost is lost" in said
    assert "the cancelled run gone is not stored" in said
    assert f"event {forged.seq} (run_complete, ) is gone from the log" in said
