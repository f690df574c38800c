"""Which system calls a sandboxed command may not make, and why; numbers per architecture.

Numbers are those of Linux's ``asm/unistd_64.h`` (x86_64) and ``asm-generic/unistd.h`` (aarch64).
Calls that the kernel itself confines are left alone, for people debug programs in sandboxes:
``ptrace`` and ``process_vm_*`` reach nothing outside a Landlock domain or a PID namespace.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

ARCHITECTURES: Final[Mapping[str, int]] = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""``os.uname().machine`` → what a filter is told the architecture is (``AUDIT_ARCH_*``)."""

Numbers = Mapping[str, tuple[int | None, int | None]]
"""Name → number on x86_64 and on aarch64; ``None`` where there is no such call."""

REFUSED: Final[Numbers] = {
    # Other mounts would be another view of the files than the one that was checked.
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "open_tree_attr": (467, 467),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    # Namespaces give power over kernel code that an ordinary process never meets.
    "unshare": (272, 97),
    "setns": (308, 268),
    # The machine itself; most of it is root's alone anyway.
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "syslog": (103, 116),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "iopl": (172, None),
    "ioperm": (173, None),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "vhangup": (153, 58),
    # Large parts of the kernel with a history of holes, which no build or test needs.
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "fanotify_init": (300, 262),
    # Keys of the user's login session are not the command's.
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # Opens files without a path, past every rule about paths.
    "open_by_handle_at": (304, 265),
}
"""Answered with ``EPERM``."""

MISSING: Final[Numbers] = {
    # A ring makes calls, also for sockets, that no filter sees.
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    # Their flags lie in memory, where no filter can look; libraries fall back to the older call.
    "clone3": (435, 435),
    "openat2": (437, 437),
}
"""Answered with ``ENOSYS``, as by an older kernel."""

SOCKET: Final = (41, 198)
SOCKETPAIR: Final = (53, 199)
CLONE: Final = (56, 220)
IOCTL: Final = (16, 29)
PRLIMIT: Final = (302, 261)

MODES: Final[Mapping[str, tuple[tuple[int | None, int | None], int]]] = {
    "chmod": ((90, None), 1),
    "fchmod": ((91, 52), 1),
    "fchmodat": ((268, 53), 2),
    "fchmodat2": ((452, 452), 2),
    "creat": ((85, None), 1),
    "mknod": ((133, None), 1),
    "mknodat": ((259, 33), 2),
}
"""Calls with a file's mode, and which argument that is."""

OPENS: Final[Mapping[str, tuple[tuple[int | None, int | None], int]]] = {
    "open": ((2, None), 1),
    "openat": ((257, 56), 2),
}
"""Calls with a mode behind their flags, if these create a file; which argument the flags are."""
