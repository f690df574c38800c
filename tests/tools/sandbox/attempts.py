"""Runs inside a sandbox: tries one thing after another, and says of each how it went.

Argument: a JSON object of places. Output: a JSON object, per attempt ``done`` or the error's name.
It stands alone, since it cannot import what is not there for it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import multiprocessing
import os
import pathlib
import pty
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable

P: dict[str, str] = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
LIBC = ctypes.CDLL(None, use_errno=True)
OUT, WS, VICTIM = P["outside"], P["workspace"], int(P["victim"])
X86 = os.uname().machine == "x86_64"
TRIES: dict[str, Callable[[], object]] = {}


def call(number: tuple[int, int], *arguments: object) -> None:
    """A system call by its numbers on x86_64 and aarch64; raises as Python's own calls do."""
    if LIBC.syscall(number[0 if X86 else 1], *arguments) < 0:
        raise OSError(ctypes.get_errno(), "call")


def write(path: str, flags: int = os.O_WRONLY | os.O_CREAT) -> None:
    fd = os.open(path, flags, 0o644)
    os.write(fd, b"1")
    os.close(fd)


def read(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.read(fd, 1)
    os.close(fd)


def connect(family: int, kind: int, address: str | tuple[str, int]) -> None:
    with socket.socket(family, kind) as made:
        made.settimeout(2)
        made.connect(address)
        made.send(b"x")


def through_link(name: str, target: str) -> None:
    with contextlib.suppress(FileExistsError):
        os.symlink(target, f"{WS}/{name}")
    write(f"{WS}/{name}" if name == "link" else f"{WS}/{name}/victim", os.O_WRONLY)


def own_loopback() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), 2).close()


def send_from_a_pair() -> None:
    one, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    one.sendto(b"x", P["datagrams"])


def stream_pair() -> None:
    one, other = socket.socketpair()
    one.send(b"x")
    other.recv(1)


def gained() -> None:
    """Succeeds if more privileges are here, or can be had, than a sandbox leaves."""
    status = pathlib.Path("/proc/self/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    left = {name: int(fields[name], 16) & ~0b11011 for name in ("CapPrm", "CapEff", "CapInh")}
    if fields["NoNewPrivs"] == "1" and not any(left.values()):
        raise PermissionError(errno.EPERM, "no")


def kept_environment() -> None:
    if not {"SSH_AUTH_SOCK", "OPENAI_API_KEY"} & set(os.environ):
        raise PermissionError(errno.EPERM, "no")


def move(source: str, target: str) -> Callable[[], None]:
    return lambda: os.rename(source, target)


def there_and_back(source: str, target: str) -> None:
    os.rename(source, target)
    os.rename(target, source)


def then(*steps: Callable[[], object]) -> Callable[[], None]:
    def all_of_them() -> None:
        for step in steps:
            step()

    return all_of_them


def listed(path: str) -> None:
    if not os.listdir(path):
        raise FileNotFoundError(errno.ENOENT, "nothing is there")


def temporary() -> None:
    with tempfile.TemporaryFile() as file:
        file.write(b"x")


def thread() -> None:
    one = threading.Thread(target=list)
    one.start()
    one.join()


def tiocsti() -> None:
    fcntl.ioctl(0, 0x5412, b"x")


def bpf() -> None:
    call((321, 280), 0, ctypes.create_string_buffer(64), 64)


def network_of_the_machine() -> None:
    connect(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", int(P["tcp"])))


TRIES |= {
    # --- writing outside
    "write a file outside": lambda: write(f"{OUT}/victim", os.O_WRONLY),
    "append outside": lambda: write(f"{OUT}/victim", os.O_WRONLY | os.O_APPEND),
    "create a file outside": lambda: write(f"{OUT}/new"),
    "empty a file outside": lambda: os.truncate(f"{OUT}/victim", 0),
    "delete outside": lambda: os.unlink(f"{OUT}/victim"),
    "make a directory outside": lambda: os.mkdir(f"{OUT}/newdir"),
    "remove a directory outside": lambda: os.rmdir(f"{OUT}/empty"),
    "rename outside": move(f"{OUT}/victim", f"{OUT}/other"),
    "move a file in": move(f"{OUT}/victim", f"{WS}/stolen"),
    "move a file out": move(f"{WS}/plain", f"{OUT}/plain"),
    "make a link outside": lambda: os.symlink("x", f"{OUT}/newlink"),
    "write through a link": lambda: through_link("link", f"{OUT}/victim"),
    "write through a linked directory": lambda: through_link("linked", OUT),
    "write through a hard link": then(
        lambda: os.link(f"{OUT}/victim", f"{WS}/hard"),
        lambda: write(f"{WS}/hard", os.O_WRONLY),
    ),
    "make a hard link outside": lambda: os.link(f"{WS}/plain", f"{OUT}/hard"),
    "make a pipe outside": lambda: os.mkfifo(f"{OUT}/fifo"),
    "write to /etc": lambda: write("/etc/crush-trio-test"),
    "write to the home directory": lambda: write(f"{P['home']}/.profile-of-a-test"),
    "write to the data directory": lambda: write(f"{P['data']}/new"),
    "open a setting of the kernel": lambda: os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY),
    "make a cgroup": lambda: os.mkdir("/sys/fs/cgroup/unified/crush-trio-test"),
    "change modes outside": lambda: os.chmod(f"{OUT}/victim", 0o600),
    "change times outside": lambda: os.utime(f"{OUT}/victim", (1, 1)),
    "set a setuid bit": lambda: os.chmod(f"{WS}/plain", 0o4755),
    "make a setuid file": lambda: os.open(f"{WS}/suid", os.O_CREAT | os.O_WRONLY, 0o4755),
    "make a device": lambda: os.mknod(f"{WS}/device", 0o60600, os.makedev(1, 3)),
    # --- reading secrets
    "read a key": lambda: read(f"{P['home']}/.ssh/id"),
    "list the keys": lambda: listed(f"{P['home']}/.ssh"),
    "read a token file": lambda: read(f"{P['home']}/.netrc"),
    "read the data directory": lambda: read(f"{P['data']}/token"),
    "read through a link": then(
        lambda: os.symlink(f"{P['home']}/.ssh/id", f"{WS}/key"),
        lambda: read(f"{WS}/key"),
    ),
    "read passwords of the machine": lambda: read("/etc/shadow"),
    "find keys in the environment": kept_environment,
    "open the memory of the machine": lambda: os.open("/dev/mem", os.O_RDONLY),
    # --- out of here
    "reach a port of the machine": network_of_the_machine,
    "send a datagram": lambda: connect(
        socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", int(P["udp"]))
    ),
    "reach a unix socket": lambda: connect(socket.AF_UNIX, socket.SOCK_STREAM, P["unix"]),
    "reach an abstract socket": lambda: connect(
        socket.AF_UNIX, socket.SOCK_STREAM, "\0" + P["abstract"]
    ),
    "reach the server": lambda: connect(socket.AF_UNIX, socket.SOCK_STREAM, P["server"]),
    "send from a pair of sockets": send_from_a_pair,
    "open a raw socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
    "open a packet socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    "open a socket of another kind": lambda: socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET),
    # --- other processes
    "trace the server": lambda: call((101, 117), 16, VICTIM, 0, 0),
    "read the server's environment": lambda: read(f"/proc/{VICTIM}/environ"),
    "read the server's memory": lambda: os.open(f"/proc/{VICTIM}/mem", os.O_RDONLY),
    "find the server's files": lambda: os.readlink(f"/proc/{VICTIM}/fd/0"),
    "leave through the server's root": lambda: read(f"/proc/{VICTIM}/root/etc/passwd"),
    "kill the server": lambda: os.kill(VICTIM, 15),
    "signal the server by descriptor": lambda: signal.pidfd_send_signal(
        os.pidfd_open(VICTIM), signal.SIGTERM
    ),
    "limit the server": lambda: resource.prlimit(VICTIM, resource.RLIMIT_CORE, (0, 0)),
    # --- the kernel
    "mount": lambda: call((165, 40), b"none", WS.encode(), b"tmpfs", 0, 0),
    "unmount": lambda: call((166, 39), b"/proc", 2),
    "open a tree": lambda: call((428, 428), -100, b"/", 1),
    "make a user namespace": lambda: call((272, 97), 0x10000000),
    "make a network namespace": lambda: call((272, 97), 0x40000000),
    "fork into a user namespace": lambda: call((56, 220), 0x10000000 | 17, 0, 0, 0, 0),
    "join a namespace": lambda: call((308, 268), os.open("/proc/self/ns/mnt", os.O_RDONLY), 0),
    "change the root": lambda: call((161, 51), WS.encode()),
    "make a ring": lambda: call((425, 425), 1, ctypes.create_string_buffer(120)),
    "load a program into the kernel": bpf,
    "read the session's keys": lambda: call((250, 219), 0, -3, 0),
    "watch faults": lambda: call((323, 282), 1),
    "count events": lambda: call((298, 241), ctypes.create_string_buffer(128), 0, -1, -1, 0),
    "open by handle": lambda: call((304, 265), -100, ctypes.create_string_buffer(128), 0),
    "type into a terminal": tiocsti,
    "open the terminal": lambda: os.open("/dev/tty", os.O_RDWR),
    "have or gain privileges": gained,
    # --- what is obeyed without being asked
    "add a git hook": lambda: write(f"{WS}/.git/hooks/pre-commit"),
    "change git's settings": lambda: write(f"{WS}/.git/config", os.O_WRONLY),
    "replace git's settings": then(
        lambda: write(f"{WS}/.git/new"),
        lambda: os.rename(f"{WS}/.git/new", f"{WS}/.git/config"),
    ),
    "swap the hooks": lambda: there_and_back(f"{WS}/.git/hooks", f"{WS}/.git/old"),
    "swap the repository": lambda: there_and_back(f"{WS}/.git", f"{WS}/old"),
    "change an editor's tasks": lambda: write(f"{WS}/.vscode/tasks.json"),
    "change our own settings": lambda: write(f"{WS}/.crush.json", os.O_WRONLY),
    "delete our own settings": lambda: os.unlink(f"{WS}/.crush.json"),
    # --- what work needs
    "write in the workspace": lambda: write(f"{WS}/made"),
    "make a directory in the workspace": lambda: os.mkdir(f"{WS}/made-too"),
    "rename in the workspace": then(
        lambda: write(f"{WS}/a"),
        lambda: os.rename(f"{WS}/a", f"{WS}/made-too/b"),
    ),
    "make a file executable": lambda: os.chmod(f"{WS}/made", 0o755),
    "write a git object": lambda: write(f"{WS}/.git/index.lock"),
    "write a temporary file": temporary,
    "name a temporary file": lambda: write(tempfile.mktemp()),
    "write to /dev/null": lambda: write("/dev/null", os.O_WRONLY | os.O_TRUNC),
    "read random bytes": lambda: read("/dev/urandom"),
    "read a file of the system": lambda: read("/etc/passwd"),
    "list the root": lambda: os.listdir("/"),
    "read a file outside": lambda: read(f"{OUT}/readable"),
    "run a program": lambda: subprocess.run(["/bin/sh", "-c", "true | cat"], check=True),
    "start a thread": thread,
    "talk through a pair of sockets": stream_pair,
    "see itself": lambda: read("/proc/self/environ"),
    # --- what bubblewrap gives besides
    "talk to itself by TCP": own_loopback,
    "make a lock between processes": multiprocessing.Lock,
    "open a terminal of its own": pty.openpty,
    "write to /tmp": lambda: write("/tmp/of-a-test"),
}


def main() -> None:
    """Try everything and say how it went."""
    said = {}
    for name, attempt in TRIES.items():
        try:
            attempt()
            said[name] = "done"
        except OSError as problem:
            said[name] = errno.errorcode.get(problem.errno or 0, str(problem))
        except subprocess.SubprocessError as problem:
            said[name] = type(problem).__name__
    sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    main()
