"""``scripts/chaos``: episodes until the wanted number of restarts is done; a tally at the end."""

from __future__ import annotations

import argparse
import fcntl
import json
import random
import sys
import time
from pathlib import Path

from tests.chaos.episode import Episode

RESTARTS_PER_EPISODE = 50
HIGHEST = ("slowest start ms", "slowest shutdown ms")


def main() -> int:
    """0 if every guarantee held, 1 if not."""
    arguments = _parse()
    until = time.monotonic() + arguments.seconds
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(10**6)
    left, failed = arguments.restarts, False
    tally: dict[str, int] = {}
    while left > 0 and time.monotonic() < until:
        episode = Episode(
            seed,
            arguments.mode,
            min(left, RESTARTS_PER_EPISODE),
            arguments.package,
            arguments.fork,
            until,
        )
        good = episode.run()
        left -= RESTARTS_PER_EPISODE
        episode.history.count("episodes")
        episode.history.count("violations", len(episode.history.violations))
        add(tally, episode.history.counts)
        if arguments.tally is not None:
            keep(arguments.tally, episode.history.counts)
        word = "ok" if good else "FAILED"
        done = episode.history.counts.get("restarts", 0)
        say(f"seed {seed} {arguments.mode}: {done} restarts, {word}")
        if not good:
            failed = True
            say(f"  kept in {episode.home}")
            for text in episode.history.violations[:10]:
                say(f"  {text[:600]}")
            break
        seed += 1
    say(table(tally))
    if arguments.tally is not None:
        say(f"\nall invocations so far ({arguments.tally}):")
        say(table(json.loads(arguments.tally.read_text())))
    return 1 if failed else 0


def say(text: str) -> None:
    """A line of the report."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    parser.add_argument("--restarts", type=int, default=50, help="lives of a server, in all")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin none after it")
    parser.add_argument("--seed", type=int, help="of the first episode; random without it")
    parser.add_argument("--mode", choices=("random", "syscall", "term", "all"), default="all")
    parser.add_argument("--tally", type=Path, help="a JSON file to which the figures are added")
    parser.add_argument("--package", type=Path, help="run the package in this directory instead")
    parser.add_argument("--fork", action="store_true", help="fork servers instead of starting them")
    return parser.parse_args()


def add(tally: dict[str, int], counts: dict[str, int]) -> None:
    """Sums, but the highest of what is a maximum."""
    for name, value in counts.items():
        before = tally.get(name, 0)
        tally[name] = max(before, value) if name in HIGHEST else before + value


def keep(path: Path, counts: dict[str, int]) -> None:
    """Add figures to a file; several invocations may do so at once."""
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        tally = json.loads(file.read() or "{}")
        add(tally, counts)
        file.truncate(0)
        file.write(json.dumps(tally, indent=1, sort_keys=True))


def table(tally: dict[str, int]) -> str:
    """The figures, one a line."""
    return "\n".join(f"{name:32} {value:>9,}" for name, value in sorted(tally.items()))


if __name__ == "__main__":
    sys.exit(main())
