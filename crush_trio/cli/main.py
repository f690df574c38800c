"""Where ``crush-trio`` begins; imports as little as the arguments allow."""

from __future__ import annotations

import os
import sys

COMPLETING = "_CRUSH_TRIO_COMPLETE"
"""Set by the scripts of `crush-trio completion` when they ask what a word may become."""


def main() -> None:
    """Run the command line and end the process with its exit code (contract 6)."""
    arguments = sys.argv[1:]
    if arguments == ["--version"]:  # needs no parser: half the time of any other command
        from crush_trio import __version__

        sys.stdout.write(f"crush-trio {__version__}\n")
        return
    if arguments in (["--help"], ["-h"]) and _tell_help():
        return
    import gc

    from crush_trio import limits

    # Importing makes much and drops little: the default would spend a seventh of it on looking.
    gc.set_threshold(limits.GC_YOUNG_ALLOCATIONS, limits.GC_MIDDLE_ROUNDS, limits.GC_OLD_ROUNDS)
    if not arguments and COMPLETING in os.environ:
        from crush_trio.cli.completion import complete

        sys.exit(complete(os.environ[COMPLETING]))
    from crush_trio.cli.group import run_command_line

    sys.exit(run_command_line(arguments))


def _tell_help() -> bool:
    """Print the stored help, without the parser that would render it; whether that worked.

    ``help.txt`` is what the parser says at 80 columns, and a test holds the two together. Where
    stdout cannot take it, the parser's way is gone, which knows what to do then.
    """
    try:
        with open(os.path.join(os.path.dirname(__file__), "help.txt"), encoding="utf-8") as file:
            sys.stdout.write(file.read())
        sys.stdout.flush()
    except OSError:
        return False
    return True
