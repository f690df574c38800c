"""The goals, each with the figure that decides it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from figures import Figures


@dataclass
class Row:
    """One line of the table; ``bound`` is the most, or with ``least`` the least."""

    goal: str
    what: str
    value: Callable[[Figures], float]
    bound: float
    unit: str = "x"
    least: bool = False
    floor: Callable[[Figures], float] | None = None
    base: Callable[[Figures], float] | None = None

    def met(self, figures: Figures) -> bool:
        """Whether the bound is kept."""
        value = self.value(figures)
        return value >= self.bound if self.least else value <= self.bound


def of(name: str) -> Callable[[Figures], float]:
    """The median of a figure."""
    return lambda figures: figures.median(name)


def ratio(goal: str, what: str, name: str, floor: str, bound: float, *, least: bool = False) -> Row:
    """A row that compares two figures of the same round."""
    return Row(
        goal,
        what,
        lambda figures: figures.ratio(name, floor),
        bound,
        least=least,
        floor=of(floor),
        base=of(name),
    )


def plain(
    goal: str,
    what: str,
    name: str,
    bound: float,
    unit: str,
    *,
    least: bool = False,
    beside: str | None = None,
) -> Row:
    """A row whose figure decides by itself; ``beside`` is what the bare stack does."""
    floor = of(beside) if beside else None
    return Row(goal, what, of(name), bound, unit, least=least, floor=floor)


ROWS = [
    ratio("1", "accept p50, ms: bare 202 handler", "ours.accept.p50", "bare.accept.p50", 1.5),
    ratio("1", "accept p95, ms: bare 202 handler", "ours.accept.p95", "bare.accept.p95", 2.2),
    plain("3", "prompt to model asked, p50", "ours.asked.p50", 11, "ms"),
    ratio("3", "the same, ms: bare 202 handler", "ours.asked.p50", "bare.accept.p50", 5),
    plain("4", "first token to first delta, p50", "ours.first.p50", 1.2, "ms"),
    plain("4", "first token to first delta, p95", "ours.first.p95", 2, "ms"),
    plain(
        "4",
        "each token at 100 tokens/s, p99",
        "ours.paced.1.p99",
        3,
        "ms",
        beside="bare.paced.1.p99",
    ),
    plain("5", "last token to terminal event, p50", "ours.end.p50", 3.5, "ms"),
    plain("6", "1 subscriber, full speed", "ours.rate.1.p50", 23_000, "tok/s", least=True),
    ratio(
        "6", "the same, tok/s: bare joining", "ours.rate.1.p50", "bare.rate.1.p50", 0.5, least=True
    ),
    plain("7", "100 subscribers, full speed", "ours.rate.100.p50", 4_700, "tok/s", least=True),
    ratio(
        "7",
        "the same, tok/s: bare joining",
        "ours.rate.100.p50",
        "bare.rate.100.p50",
        0.6,
        least=True,
    ),
    ratio("7", "one frame per event, 1/s: bare send", "ours.each", "bare.each", 0.7, least=True),
    plain(
        "8",
        "100 subscribers, 100 events/s, p95",
        "ours.paced.100.p95",
        25,
        "ms",
        beside="bare.paced.100.p95",
    ),
    plain("8", "the same, CPU", "ours.paced.100.cores", 1, "cores", beside="bare.paced.100.cores"),
    ratio("8", "1 subscriber p95, ms: bare send", "ours.paced.1.p95", "bare.paced.1.p95", 1.5),
    plain("9", "fixed part of a delta (contract)", "envelope", 160, "bytes"),
    plain("9", "fixed part of a delta (goal)", "envelope", 120, "bytes"),
    plain("9", "all bytes per token of 14 bytes", "bytes_per_token", 128, "bytes"),
    plain("9", "bytes of 2,000 : 1,000 tokens", "linear", 2.05, "x"),
    plain("9", "frames per event, at most", "frames_per_event", 1, "x"),
    plain("12", "CPU of a one-token turn", "ours.cpu_ms", 15, "ms", beside="bare.cpu_ms"),
    plain("13", "crush-trio --version", "cli.version.p50", 60, "ms", beside="cli.pass.p50"),
    plain("13", "crush-trio --help", "cli.help.p50", 60, "ms", beside="cli.pass.p50"),
    ratio("13", "run, ms: import trio, trio_websocket", "cli.run.p50", "cli.trio.p50", 1.6),
    ratio(
        "14",
        "start, ms: import quart_trio, hypercorn",
        "start.answer.p50",
        "start.imports.p50",
        1.5,
    ),
    plain(
        "14",
        "run that starts its server",
        "start.cold_run.p50",
        1000,
        "ms",
        beside="start.imports.p50",
    ),
    ratio("15", "idle, MB: plain stack", "memory.idle_mb", "memory.plain_mb", 1.5),
    plain("15", "per idle websocket", "memory.socket_kb", 50, "kB", beside="memory.bare_socket_kb"),
    plain("15", "per idle session", "memory.session_kb", 4, "kB"),
    plain("15", "after the finished sessions, over idle", "memory.finished_mb", 5, "MB"),
    plain("17", "cancel to its end, no tool, p50", "cancel.plain.p50", 100, "ms"),
    plain("17", "cancel to its end, no tool, worst", "cancel.plain.p100", 500, "ms"),
    plain("17", "the same, a tool that traps TERM", "cancel.stubborn.p100", 3000, "ms"),
    plain("18", "SIGTERM to exit, everything stuck", "stop.stuck_s", 10, "s"),
    plain("19", "restart, 10,000 sessions", "restart.stored", 1000, "ms", beside="restart.empty"),
    plain("19", "the same after SIGKILL", "restart.killed", 1000, "ms", beside="restart.empty"),
    plain("20", "1,000 subscribers and a stalled, p99", "crowd.stalled.p99", 250, "ms"),
    ratio("20", "the same, ms: without it", "crowd.stalled.p99", "crowd.free.p99", 1.25),
    plain("20", "events missed by any of them", "crowd.gaps", 0, ""),
    plain(
        "21",
        "a provider's piece to a subscriber, p50",
        "provider.ours.p50",
        1.5,
        "ms",
        beside="provider.httpx.p50",
    ),
    plain(
        "21",
        "the same, p95",
        "provider.ours.p95",
        4,
        "ms",
        beside="provider.httpx.p95",
    ),
    ratio(
        "21",
        "1 run, tok/s: bare httpx2 loop",
        "provider.ours.rate.1",
        "provider.httpx.rate.1",
        0.5,
        least=True,
    ),
    ratio(
        "21",
        "20 runs, tok/s: bare httpx2 loops",
        "provider.ours.rate.20",
        "provider.httpx.rate.20",
        0.5,
        least=True,
    ),
    plain("21", "CPU of a token of 1 run", "provider.ours.us.1", 60, "µs"),
    plain("21", "CPU of a token of 20 runs", "provider.ours.us.20", 100, "µs"),
    ratio("22", "grep of 100,000 files, s: grep -r", "tools.grep_s", "bare.grep_s", 5),
    ratio("22", "the same without ripgrep", "tools.grep_own_s", "bare.grep_s", 5),
    ratio("22", "glob in them, s: find", "tools.glob_s", "bare.glob_s", 5),
    ratio("22", "ls with its sums, s: ls -R", "tools.ls_s", "bare.ls_s", 15),
    plain(
        "22", "bash true, over a turn without", "tools.bash_over_ms", 60, "ms", beside="bare.sh_ms"
    ),
    plain("22", "CPU of a turn that calls bash", "tools.bash_cpu_ms", 80, "ms"),
    plain("22", "20 shells at once", "tools.shells_s", 3, "s", beside="bare.shells_s"),
    ratio(
        "22",
        "output, MB/s: bare pipe",
        "tools.output_mb_s",
        "bare.output_mb_s",
        0.2,
        least=True,
    ),
    plain("22", "edit of a file of 5 MB", "tools.edit_ms", 500, "ms", beside="bare.edit_ms"),
    plain("16", "transactions of a turn", "commits.turn", 4, ""),
    plain("16", "transactions per call, no process", "commits.per_view", 1, ""),
    plain("16", "transactions per call with a process", "commits.per_ls", 1, ""),
    plain("16", "transactions per token", "commits.per_token", 0, ""),
    ratio(
        "16",
        "10 writers, commits/s: bare SQL",
        "store.grouped",
        "store.grouped_bare",
        0.6,
        least=True,
    ),
]


def number(value: float) -> str:
    """Three significant digits, thousands separated."""
    if value and abs(value) < 10:
        return f"{value:.2f}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}"


def table(figures: Figures) -> str:
    """Every goal whose figures were measured."""
    lines = [
        f"{'goal':>4}  {'what':38} {'ours':>9} {'floor':>9} {'figure':>14} {'wanted':>12}  met"
    ]
    for row in ROWS:
        try:
            value = row.value(figures)
        except (KeyError, ValueError, ArithmeticError):
            continue  # this measure was not asked for
        ours = number(row.base(figures)) if row.base else ""
        floor = number(row.floor(figures)) if row.floor else ""
        wanted = f"{'≥' if row.least else '≤'} {number(row.bound)}"
        met = "yes" if row.met(figures) else "NO"
        shown = f"{number(value)} {row.unit}"
        lines.append(
            f"{row.goal:>4}  {row.what:38} {ours:>9} {floor:>9} {shown:>14} {wanted:>12}  {met}"
        )
    return "\n".join(lines)
