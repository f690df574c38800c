"""Standalone: the launcher's forked child shuts itself in before it becomes the command.

Loaded from its file by `crush_trio/tools/processes/launcher.py`, which runs without our package;
only tests import it otherwise. What is to be done stands in a plan (`tools.sandbox.plan`), made by
the server. Whatever fails raises, and the command is then not run.

Two ways: the plan names a program that wraps the command (bubblewrap), or this process restricts
itself with Landlock. Both get the same system call filter, and no privileges they could gain.
"""

from __future__ import annotations

import ctypes
import os
import resource
import stat
import sys

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
CAPABILITY_VERSION_3 = 0x20080522
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446  # the same everywhere

CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
MS_REC, MS_PRIVATE = 16384, 1 << 18
OPEN_TREE, MOVE_MOUNT, MOUNT_SETATTR = 428, 429, 442  # the same everywhere; Linux 5.12
OPEN_TREE_CLONE, AT_EMPTY_PATH, AT_RECURSIVE, MOUNT_ATTR_RDONLY = 1, 0x1000, 0x8000, 1
FROM_AND_TO_EMPTY_PATH = 0x04 | 0x40

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
MAKE_CHAR, MAKE_BLOCK = 1 << 6, 1 << 11
TRUNCATE, IOCTL_DEV = 1 << 14, 1 << 15
FOR_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
READ = EXECUTE | READ_FILE | READ_DIR
NET_TCP = 0b11  # bind and connect
SCOPES = 0b11  # abstract sockets and signals
MOST_RULES = 5_000  # of one ruleset; a directory beside a hidden one costs a rule per entry


def abi(libc: ctypes.CDLL | None = None) -> int:
    """The version of Landlock that the kernel offers; 0 if it has none."""
    libc = libc or ctypes.CDLL(None, use_errno=True)
    found: int = libc.syscall(LANDLOCK_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    return max(0, found)


def handled(version: int) -> tuple[int, int, int]:
    """What a ruleset of this version can govern: rights on files, on TCP, and scopes."""
    bits = 13 + (version >= 2) + (version >= 3)
    files = (1 << bits) - 1 | (IOCTL_DEV if version >= 5 else 0)
    return files, NET_TCP if version >= 4 else 0, SCOPES if version >= 6 else 0


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"sandbox: {what}: {os.strerror(number)}")
    return result


def enter(plan: dict[str, object], argv: list[str]) -> list[str]:
    """Restrict this process as planned; the arguments of the program it is to become.

    Raises:
        OSError: It could not be done.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    for name, most in _pairs(plan["limits"]):
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (bound, bound))
    program = plan["filter"]
    assert isinstance(program, bytes)
    if plan["mounts"] is not None:
        _mount(libc, _mounts(plan["mounts"]), new_user=bool(plan["new user"]))
    wrap = plan["wrap"]
    if isinstance(wrap, list):
        fd = os.memfd_create("filter", 0)
        os.write(fd, program)
        os.lseek(fd, 0, os.SEEK_SET)
        return [*(str(fd) if word == "@filter" else str(word) for word in wrap), "--", *argv]
    kept = plan["capabilities"]
    _drop_capabilities(libc, frozenset(kept) if isinstance(kept, list) else frozenset())
    _check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    _landlock(libc, plan)
    _filter(libc, program)
    return argv


def _pairs(value: object) -> list[tuple[str, int]]:
    assert isinstance(value, dict)
    return list(value.items())


def _mounts(value: object) -> list[tuple[str, bool]]:
    assert isinstance(value, list)
    return value


def _texts(value: object) -> list[str]:
    assert isinstance(value, list)
    return value


def _mount(libc: ctypes.CDLL, places: list[tuple[str, bool]], *, new_user: bool) -> None:
    """In a mount namespace of its own, mount each place over itself, read-only or writable.

    Another command may exchange names in the workspace at this moment. So a place is opened once,
    without following links, and what was opened is mounted over just that, by descriptors.
    """
    uid, gid = os.getuid(), os.getgid()
    flags = CLONE_NEWNS | (CLONE_NEWUSER if new_user else 0)
    _check(libc.unshare(flags), "a mount namespace")
    if new_user:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{uid} {uid} 1"),
            ("gid_map", f"{gid} {gid} 1"),
        ):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)
    _check(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None), "private mounts")
    empty = ctypes.c_char_p(b"")
    for place, stays_writable in places:
        there = _opened(place)
        if there is None:
            continue
        clone = ctypes.c_uint(OPEN_TREE_CLONE | AT_EMPTY_PATH | AT_RECURSIVE | os.O_CLOEXEC)
        tree = _check(libc.syscall(OPEN_TREE, there, empty, clone), f"cloning {place}")
        if not stays_writable:
            attributes = (ctypes.c_uint64 * 4)(MOUNT_ATTR_RDONLY, 0, 0, 0)
            size = ctypes.c_size_t(ctypes.sizeof(attributes))
            call = (MOUNT_SETATTR, tree, empty, ctypes.c_uint(AT_EMPTY_PATH), attributes, size)
            _check(libc.syscall(*call), f"protecting {place}")
        over = ctypes.c_uint(FROM_AND_TO_EMPTY_PATH)
        _check(libc.syscall(MOVE_MOUNT, tree, empty, there, empty, over), f"mounting {place}")
        os.close(tree)
        os.close(there)


def _opened(place: str) -> int | None:
    """A descriptor of exactly this place; ``None`` if it is not there any more.

    Raises:
        OSError: A link is in the way.
    """
    fd = os.open("/", os.O_PATH | os.O_CLOEXEC)
    try:
        for name in place.split("/"):
            if name:
                below = os.open(name, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=fd)
                os.close(fd)
                fd = below
        if stat.S_ISLNK(os.fstat(fd).st_mode):
            raise OSError(40, f"sandbox: {place} was exchanged for a link")
    except FileNotFoundError:
        os.close(fd)
        return None
    return fd


def _drop_capabilities(libc: ctypes.CDLL, kept: frozenset[int]) -> None:
    """Keep of the capabilities, which only root has, no others than these, also across exec."""
    libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    for number in range(64):
        if number not in kept:  # refused without privilege, and then there is nothing to drop
            libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    now = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; low words, then high ones
    _check(libc.capget(header, now), "reading capabilities")
    low = now[1] & sum(1 << number for number in kept)
    _check(libc.capset(header, (ctypes.c_uint32 * 6)(low, low, 0, 0, 0, 0)), "capabilities")


class _Rules:
    """A Landlock ruleset that is being filled."""

    def __init__(self, libc: ctypes.CDLL, version: int, *, network: bool) -> None:
        self.libc = libc
        self.files, tcp, scopes = handled(version)
        attributes = (ctypes.c_uint64 * 3)(self.files, 0 if network else tcp, scopes)
        size = 8 if version < 4 else 16 if version < 6 else 24
        call = (LANDLOCK_CREATE, attributes, ctypes.c_size_t(size), ctypes.c_uint32(0))
        self.fd = _check(libc.syscall(*call), "Landlock")
        self.count = 0

    def add(self, path: str, rights: int) -> None:
        """Grant rights on a file, or on a directory and all below it; a missing one is skipped."""
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return  # not there: nothing to grant
        try:
            mode = os.fstat(fd).st_mode
            if stat.S_ISLNK(mode):
                return
            self.count += 1
            if self.count > MOST_RULES:
                raise OSError(7, f"sandbox: too many entries beside what is hidden, as {path}")
            rights &= self.files if stat.S_ISDIR(mode) else self.files & FOR_FILES
            beneath = ctypes.create_string_buffer(
                rights.to_bytes(8, sys.byteorder) + fd.to_bytes(4, sys.byteorder, signed=True), 12
            )
            call = (LANDLOCK_ADD, self.fd, 1, beneath, ctypes.c_uint32(0))
            _check(self.libc.syscall(*call), f"Landlock: {path}")
        finally:
            os.close(fd)


def readable(hidden: list[str]) -> list[str]:
    """The topmost places that together are everything but what is hidden."""
    found: list[str] = []
    todo = ["/"]
    while todo:
        place = todo.pop()
        below = place.rstrip("/") + "/"
        if place in hidden:
            continue
        if not any(path.startswith(below) for path in hidden):
            found.append(place)
            continue
        try:
            todo += [below + name for name in os.listdir(place)]
        except OSError:
            continue  # what we may not list, it may not read
    return found


def _landlock(libc: ctypes.CDLL, plan: dict[str, object]) -> None:
    rules = _Rules(libc, abi(libc), network=bool(plan["network"]))
    everything = rules.files & ~(MAKE_CHAR | MAKE_BLOCK)
    rules.add("/", READ_DIR)  # names can be looked up anyway, one by one
    for path in (*readable(_texts(plan["hidden"])), *_texts(plan["readable"])):
        rules.add(path, READ)
    for path in _texts(plan["writable"]):
        rules.add(path, everything)
    for path in _texts(plan["devices"]):
        rules.add(path, READ_FILE | WRITE_FILE | TRUNCATE)
    restrict = (LANDLOCK_RESTRICT, rules.fd, ctypes.c_uint32(0))
    _check(libc.syscall(*restrict), "Landlock")
    os.close(rules.fd)


def _filter(libc: ctypes.CDLL, program: bytes) -> None:
    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))

    loaded = Program(len(program) // 8, program)
    _check(
        libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(loaded), 0, 0),
        "the system call filter",
    )


def main() -> None:
    """Become the command of the arguments behind a descriptor's number with the plan."""
    import marshal

    with open(int(sys.argv[1]), "rb") as file:
        plan = marshal.load(file)
    argv = enter(plan, sys.argv[2:])
    os.execv(argv[0], argv)


if __name__ == "__main__":
    main()
