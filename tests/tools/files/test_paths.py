"""Paths of calls against an oracle (T37), and against somebody who swaps names meanwhile (T38)."""

from __future__ import annotations

import ctypes
import os
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import attrs
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
LOOKS = frozenset(
    {"open", "lstat", "stat", "fstat", "readlink", "listxattr", "rename", "link", "unlink"}
)
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
    if top not in expected.parents:
        return  # so much is decided; files are made in the tree alone
    before = {path: path.is_symlink() for path in top.rglob("*")}
    with suppress(OSError, ToolProblem):
        found = read_text(place.path)
        replace_file(place.path, "written", None if found is None else found.version)
        assert place.path.read_text() == "written"
    changed = {path for path in top.rglob("*") if path not in before}
    assert changed <= {place.path, *place.path.parents}
    written = {path for path in top.rglob("*") if path.is_file() and path.read_text() == "written"}
    assert {Path(os.path.realpath(path)) for path in written} <= {place.path}


def exchanger(one: Path, other: Path) -> Callable[[], object]:
    """What exchanges two names in one step."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        pytest.skip("no renameat2 here")
    names = (AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE)
    if renameat2(*names) != 0 or renameat2(*names) != 0:
        pytest.skip("this file system does not exchange names")
    return lambda: renameat2(*names)


@contextmanager
def swapping(swap: Callable[[], object]) -> Iterator[None]:
    """Exchange the names without pause while the block runs."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            swap()

    attacker = threading.Thread(target=work)
    attacker.start()
    try:
        yield
    finally:
        stop.set()
        attacker.join()


@contextmanager
def swapping_before(places: tuple[int, ...], swap: Callable[[], object]) -> Iterator[list[str]]:
    """Exchange the names right before these system calls of the block, which are counted."""
    seen: list[str] = []

    def look(_frame: FrameType, event: str, argument: Any) -> None:
        if event == "c_call" and argument.__name__ in LOOKS:
            if len(seen) in places:
                swap()
            seen.append(argument.__name__)

    sys.setprofile(look)
    try:
        yield seen
    finally:
        sys.setprofile(None)


@attrs.frozen
class Scene:
    """A workspace in which a name and a link that leads outside can be exchanged."""

    root: Path
    outside: Path
    swap: Callable[[], object]

    def attempt(self, text: str | None) -> bool:
        """Read ``dir/f``, then write ``text`` into it; whether that went well."""
        try:
            place = resolve_place("dir/f", self.root)
            if not place.inside:
                return False  # it would be asked for
            found = read_text(place.path)
            assert found is None or "secret" not in found.text
            if text is not None:
                replace_file(place.path, text, None if found is None else found.version)
        except (OSError, ToolProblem):
            return False
        return True

    def check(self) -> None:
        """Nothing outside was written, and nothing was made there."""
        assert (self.outside / "f").read_text() == "secret"
        assert os.listdir(self.outside) == ["f"]


@pytest.fixture(params=["directory", "file"])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Scene:
    """The directory, or the file itself, is what is exchanged."""
    root, outside = Path(os.path.realpath(tmp_path)) / "ws", tmp_path / "outside"
    (root / "dir").mkdir(parents=True)
    outside.mkdir()
    (outside / "f").write_text("secret")
    (root / "dir" / "f").write_text("mine")
    name, target = (root / "dir", outside)
    if request.param == "file":
        name, target = name / "f", target / "f"
    (root / "evil").symlink_to(target)
    return Scene(root, outside, exchanger(name, root / "evil"))


def test_nothing_outside_is_read_or_written_whenever_names_are_swapped(scene: Scene) -> None:
    """Before every system call, and back a little later, or never."""
    with swapping_before((), scene.swap) as calls:
        assert scene.attempt("mine")
    count = len(calls)
    assert count > 10
    outcomes = set()
    for first in range(count):
        for later in (1, 2, 4, count):
            second = min(first + later, count)
            text = "mine" if later in (1, count) else None  # each write is synced
            with swapping_before((first, second), scene.swap) as calls:
                outcomes.add(scene.attempt(text))
            if not (scene.root / "evil").is_symlink():
                scene.swap()
            scene.check()
    assert outcomes == {True, False}


def test_nothing_outside_is_read_or_written_while_names_are_swapped(scene: Scene) -> None:
    """By another thread, all the time."""
    with swapping(scene.swap):
        for number in range(ROUNDS):
            scene.attempt("mine" if number % 4 == 0 else None)
    scene.check()
