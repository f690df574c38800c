"""How our own programs bound their memory; imported by them, so it imports little."""

from __future__ import annotations

import contextlib
import resource


def bound_memory(most_bytes: int) -> None:
    """Let this process have no more address space than this, or than it was given already.

    Where the system knows no such bound (macOS), nothing happens.
    """
    given = resource.getrlimit(resource.RLIMIT_AS)
    bound = min([most_bytes, *(most for most in given if most != resource.RLIM_INFINITY)])
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
