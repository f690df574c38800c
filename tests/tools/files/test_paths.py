"""Paths of calls against an oracle (T37), and against somebody who swaps names meanwhile (T38)."""

from __future__ import annotations

import ctypes
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crush_trio.tools.arguments import ToolProblem
from crush_trio.tools.files.text_file import read_text, replace_file
from crush_trio.tools.paths import resolve_place

EXAMPLES = int(os.environ.get("CRUSH_TRIO_PATH_EXAMPLES", "60"))
"""100,000 is the long form."""
ROUNDS = int(os.environ.get("CRUSH_TRIO_SWAP_ROUNDS", "300"))
"""10,000 is the long form."""
AT_FDCWD, RENAME_EXCHANGE = -100, 2
NAMES = ("a", "b", "ws", "ws2", "A", "é", "e\u0301", "..", ".", "")
PARTS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=6)


def walk(root: Path, text: str) -> Path:
    """Where a path leads, one component at a time: the oracle. `root` is without links.

    Raises:
        RecursionError: In a circle.
    """
    todo = [part for part in reversed(text.split("/")) if part not in ("", ".")]
    here = Path("/") if text.startswith("/") else root
    for _ in range(400):
        if not todo:
            return here
        part = todo.pop()
        if part == "..":
            here = here.parent
            continue
        there = here / part
        try:
            is_link = stat.S_ISLNK(os.lstat(there).st_mode)
        except OSError:
            is_link = False
        if not is_link:
            here = there
            continue
        target = os.readlink(there)
        here = Path("/") if target.startswith("/") else here
        todo += [one for one in reversed(target.split("/")) if one not in ("", ".")]
    raise RecursionError


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    tree=st.dictionaries(
        st.tuples(st.sampled_from(("ws", "ws/a", "ws2")), st.sampled_from(NAMES[:7])),
        st.one_of(st.just("dir"), st.just("file"), PARTS.map("/".join), PARTS.map("//".join)),
        max_size=6,
    ),
    asked=st.tuples(st.booleans(), PARTS),
)
def test_a_path_is_inside_exactly_if_it_leads_inside(
    tree: dict[tuple[str, str], str], asked: tuple[bool, list[str]], tmp_path: Path
) -> None:
    """Every example in a tree of its own; what is found is then written, and nothing else."""
    top = Path(os.path.realpath(tmp_path)) / os.urandom(6).hex()
    root = top / "ws"
    (root / "a").mkdir(parents=True)
    (top / "ws2").mkdir()
    for (where, name), what in tree.items():
        with suppress(OSError):  # a name that is taken, or a directory that is none
            at = top / where / name
            if what == "dir":
                at.mkdir()
            elif what == "file":
                at.write_text("")
            else:
                at.symlink_to(f"{top}{what}" if what.startswith("/") else what)
    absolute, parts = asked
    text = f"{top}/{'/'.join(parts)}" if absolute else "/".join(parts).lstrip("/") or "."
    try:
        expected = walk(root, text)
    except RecursionError:
        return  # whatever it is called, it cannot be opened: below
    place = resolve_place(text, root)
    assert place.path == expected
    assert place.inside is (expected == root or root in expected.parents)
    before = {path: path.is_symlink() for path in top.rglob("*")}
    with suppress(OSError, ToolProblem):
        found = read_text(place.path)
        replace_file(place.path, "written", None if found is None else found.version)
        assert place.path.read_text() == "written"
    changed = {path for path in top.rglob("*") if path not in before}
    assert changed <= {place.path, *place.path.parents}
    written = {path for path in top.rglob("*") if path.is_file() and path.read_text() == "written"}
    assert {Path(os.path.realpath(path)) for path in written} <= {place.path}


@contextmanager
def swapping(one: Path, other: Path) -> Iterator[None]:
    """Exchange two names without pause while the block runs."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        pytest.skip("no renameat2 here")
    names = (AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE)
    if renameat2(*names) != 0:
        pytest.skip("this file system does not exchange names")
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            renameat2(*names)

    attacker = threading.Thread(target=work)
    attacker.start()
    try:
        yield
    finally:
        stop.set()
        attacker.join()


@pytest.mark.parametrize("what", ["directory", "file"])
def test_nothing_outside_is_read_or_written_while_names_are_swapped(
    what: str, tmp_path: Path
) -> None:
    """Somebody exchanges a directory, or the file itself, with a link that leads outside."""
    root, outside = Path(os.path.realpath(tmp_path)) / "ws", tmp_path / "outside"
    (root / "dir").mkdir(parents=True)
    outside.mkdir()
    (outside / "f").write_text("secret")
    (root / "dir" / "f").write_text("mine")
    if what == "directory":
        pair = (root / "dir", root / "evil")
        pair[1].symlink_to(outside)
    else:
        pair = (root / "dir" / "f", root / "evil")
        pair[1].symlink_to(outside / "f")
    done = refused = 0
    with swapping(*pair):
        for number in range(ROUNDS):
            try:
                place = resolve_place("dir/f", root)
                if not place.inside:
                    refused += 1  # it would be asked for
                    continue
                found = read_text(place.path)
                assert found is None or "secret" not in found.text
                if number % 4 == 0:  # each one is synced
                    replace_file(place.path, f"{number}", None if found is None else found.version)
                    done += 1
            except (OSError, ToolProblem):
                refused += 1
    assert (outside / "f").read_text() == "secret"
    assert os.listdir(outside) == ["f"]
    assert done
    assert refused
