"""What tools that work in the server's own process ask before they touch a file."""

from __future__ import annotations

from pathlib import Path

from crush_trio.agent.ports import ToolContext
from crush_trio.tools.arguments import ToolProblem


def demand_readable(path: Path, context: ToolContext) -> None:
    """Return if the run's sandbox lets it read ``path``, which has no symbolic links.

    Raises:
        ToolProblem: It hides it.
    """
    problem = context.sandbox.why_not_read(path) if context.sandbox is not None else None
    if problem is not None:
        raise ToolProblem(problem)


def demand_writable(path: Path, context: ToolContext) -> None:
    """Return if the run's sandbox lets it write ``path``, which has no symbolic links.

    Raises:
        ToolProblem: It does not.
    """
    problem = context.sandbox.why_not_write(path) if context.sandbox is not None else None
    if problem is not None:
        raise ToolProblem(problem)


def demand_network(context: ToolContext) -> None:
    """Return if the run's sandbox leaves it the network.

    Raises:
        ToolProblem: It does not.
    """
    if context.sandbox is not None and not context.sandbox.network:
        raise ToolProblem(
            "The sandbox of this run has no network; whoever started it can allow it "
            "(options.sandbox.network)."
        )
