"""The system call filter of a sandboxed command, as a program of classic BPF. Pure."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable, Sequence

from crush_trio.tools.sandbox import syscalls

_LOAD, _AND, _EQUAL, _AT_LEAST, _ANY_OF, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_X32 = 0x40000000  # numbers from here on are those of another ABI of x86_64
_NAMESPACES = 0x7E020000  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_CREATES = 0o100 | 0o20000000  # O_CREAT, and what O_TMPFILE has of its own
_SETUID = 0o4000
_SOCKET_KIND = 0xF  # what is left of a socket's type without SOCK_CLOEXEC and SOCK_NONBLOCK

Step = tuple[int, int, int, int]
"""Operation, steps to skip if true and if false, operand."""


def program(machine: str, families: Iterable[int]) -> bytes | None:
    """The filter for a machine's architecture; ``None`` where we know none.

    Args:
        machine: As `os.uname` names it.
        families: Address families of which sockets may be made. Never ``AF_UNIX``: through its
            paths lie other programs, which would do outside what is refused in here.
    """
    if machine not in syscalls.ARCHITECTURES:
        return None
    column = list(syscalls.ARCHITECTURES).index(machine)
    steps: list[Step] = [
        (_LOAD, 0, 0, 4),
        (_EQUAL, 1, 0, syscalls.ARCHITECTURES[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),
    ]
    if machine == "x86_64":
        steps += [(_AT_LEAST, 0, 1, _X32), _answer(errno.ENOSYS)]

    def rule(numbers: tuple[int | None, int | None], body: Sequence[Step]) -> None:
        number = numbers[column]
        if number is not None:
            steps.append((_EQUAL, 0, len(body), number))
            steps.extend(body)

    for each in syscalls.REFUSED.values():
        rule(each, [_answer(errno.EPERM)])
    for each in syscalls.MISSING.values():
        rule(each, [_answer(errno.ENOSYS)])
    rule(syscalls.SOCKET, [_argument(0), *_only(families)])
    # A pair of datagram sockets could still be sent to any path.
    pair = [_argument(1), (_AND, 0, 0, _SOCKET_KIND)]
    pair += _only((socket.SOCK_STREAM, socket.SOCK_SEQPACKET))
    rule(syscalls.SOCKETPAIR, [_argument(0), *_unless(socket.AF_UNIX), *pair])
    rule(syscalls.CLONE, [_argument(0), *_without(_NAMESPACES)])
    keys = [(_EQUAL, 1, 0, _TIOCSTI), (_EQUAL, 0, 1, _TIOCLINUX), _answer(errno.EPERM), _allowed()]
    rule(syscalls.IOCTL, [_argument(1), *keys])
    # Limits of another process, such as the server, are not the command's to set.
    rule(syscalls.PRLIMIT, [_argument(0), *_only((0,))])
    for numbers, place in syscalls.MODES.values():
        rule(numbers, [_argument(place), *_without(_SETUID)])
    for numbers, place in syscalls.OPENS.values():
        creates: list[Step] = [(_ANY_OF, 1, 0, _CREATES), _allowed()]
        rule(numbers, [_argument(place), *creates, _argument(place + 1), *_without(_SETUID)])
    steps.append(_allowed())
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def _argument(number: int) -> Step:
    """Load the lower half of an argument; both architectures have it first in memory."""
    return (_LOAD, 0, 0, 16 + 8 * number)


def _allowed() -> Step:
    return (_RETURN, 0, 0, _ALLOW)


def _answer(number: int) -> Step:
    return (_RETURN, 0, 0, _ERRNO | number)


def _only(values: Iterable[int]) -> list[Step]:
    """Go on with one of these values, and refuse any other."""
    each = [step for value in values for step in ((_EQUAL, 0, 1, int(value)), _allowed())]
    return [*each, _answer(errno.EPERM)]


def _unless(value: int) -> list[Step]:
    """Refuse any other value; with this one look further."""
    return [(_EQUAL, 1, 0, int(value)), _answer(errno.EPERM)]


def _without(bits: int) -> list[Step]:
    """Refuse a value that has any of these bits."""
    return [(_ANY_OF, 0, 1, bits), _answer(errno.EPERM), _allowed()]
