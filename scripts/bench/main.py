"""Measures the speed goals, three interleaved rounds, medians, and prints a table or JSON.

Unix sockets only, in a temporary directory, with an empty home. Stops by itself,
and ends every process it started. Absolute figures move with the machine: read the ratios, which
are taken within a round against a bare handler or a floor measured next to it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import store
import trio
from commits import Commits
from crowd import Crowd
from figures import Figures
from goals import ROWS, table
from life import Life
from memory import Memory
from processes import Workshop, workshop
from providers import MANY as RUNS
from providers import Providers
from starts import Starts
from streams import MANY, Streams
from tools import Tools
from turns import Turns

ROUNDS = 3
LIMIT_S = {False: 900, True: 240}
PARTS = (
    "turns",
    "streams",
    "starts",
    "commits",
    "memory",
    "store",
    "life",
    "crowd",
    "providers",
    "tools",
)


def measures(
    shop: Workshop, parts: tuple[str, ...], *, quick: bool
) -> list[Callable[[Figures], None]]:
    """What is done in each round, in this order."""
    bare, ours = shop.keep(shop.bare()), shop.keep(shop.ours())
    todo: list[Callable[[Figures], None]] = []
    if "turns" in parts:
        turns = Turns(shop, bare, ours, quick=quick)
        todo += [turns.accept, turns.steps]
    if "streams" in parts:
        # On a server of their own: the subscribers of other measures must not hear of it.
        stream = Streams(shop, shop.keep(shop.bare()), shop.keep(shop.ours()), quick=quick)
        todo += [
            lambda figures: stream.full_speed(figures, 1),
            lambda figures: stream.full_speed(figures, MANY),
            stream.one_by_one,
            lambda figures: stream.paced(figures, 1),
            lambda figures: stream.paced(figures, MANY),
            stream.size,
        ]
    if "starts" in parts:
        starts = Starts(shop, ours, quick=quick)
        todo += [starts.command_line, starts.server]
    if "life" in parts:
        life = Life(shop, quick=quick)
        todo += [life.cancel, life.stop, life.start]
    if "crowd" in parts:
        todo.append(Crowd(shop, quick=quick).round)
    if "providers" in parts:
        providers = Providers(shop, quick=quick)
        todo += [
            providers.delays,
            lambda figures: providers.rates(figures, 1),
            lambda figures: providers.rates(figures, RUNS),
        ]
    if "tools" in parts:
        tools = Tools(shop, quick=quick)
        todo += [tools.searches, tools.commands, tools.edit]
    if "commits" in parts:
        todo.append(Commits(shop).round)
    if "memory" in parts:
        todo.append(Memory(shop, quick=quick).round)
    return todo


def measure_store(shop: Workshop, figures: Figures, *, quick: bool) -> None:
    """Goal 16's second half; it does its three rounds by itself."""
    latency, rate = trio.run(store.measure, shop.fresh("store"), 0.5 if quick else 1.0)
    for name, found in (("single", latency), ("grouped", rate)):
        for value, floor in zip(found.store, found.ceiling, strict=True):
            figures.add(f"store.{name}", value)
            figures.add(f"store.{name}_bare", floor)


def run(shop: Workshop, parts: tuple[str, ...], *, quick: bool) -> tuple[Figures, list[float]]:
    """All rounds; the figures, and the load average at the begin of each and at the end."""
    figures, loads = Figures(), []
    todo = measures(shop, parts, quick=quick)
    rounds = 1 if quick else ROUNDS
    for number in range(rounds):
        loads.append(os.getloadavg()[0])
        started = time.monotonic()
        for measure in todo:
            measure(figures)
        took = time.monotonic() - started
        print(f"round {number + 1} of {rounds}: {took:.0f} s", file=sys.stderr, flush=True)
    if "store" in parts:
        measure_store(shop, figures, quick=quick)
    loads.append(os.getloadavg()[0])
    return figures, loads


def as_json(figures: Figures, facts: dict[str, Any]) -> dict[str, Any]:
    """Everything, for a machine."""
    goals = []
    for row in ROWS:
        try:
            value = row.value(figures)
        except (KeyError, ValueError, ArithmeticError):
            continue  # this measure was not asked for
        goals.append(
            {
                "goal": row.goal,
                "what": row.what,
                "value": value,
                "unit": row.unit,
                "bound": row.bound,
                "least": row.least,
                "met": row.met(figures),
            }
        )
    medians = {name: statistics.median(values) for name, values in figures.values.items()}
    return {**facts, "goals": goals, "medians": medians, "rounds": dict(figures.values)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="scripts/bench/run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round, under 2 minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")
    parser.add_argument("--dir", type=Path, help="where to put the databases (a real disk)")
    parser.add_argument("--only", choices=PARTS, action="append", help="a part; repeatable")
    args = parser.parse_args()
    started = time.monotonic()
    with workshop(args.dir, LIMIT_S[args.quick]) as shop:
        figures, loads = run(shop, tuple(args.only or PARTS), quick=args.quick)
    facts = {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        "rounds_measured": 1 if args.quick else ROUNDS,
        "load_average": loads,
        "seconds": round(time.monotonic() - started),
    }
    print(table(figures))
    print()
    for name, value in facts.items():
        print(f"{name}: {value}")
    if args.json:
        args.json.write_text(json.dumps(as_json(figures, facts), indent=2) + "\n")


if __name__ == "__main__":
    main()
