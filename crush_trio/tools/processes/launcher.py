"""A standalone subreaper: starts one command and ends everything that came of it.

Run by `crush_trio.tools.processes.launched` as ``python -I -S launcher.py …``; nothing imports it.
It stands between the server and a tool's shell so that one promise holds however either of them
ends: when the control pipe closes, every descendant of the command is ended: TERM, a grace, KILL.

* As a child subreaper it adopts whatever its descendants orphan, so a double fork or a ``setsid``
  is no way out, and "``waitpid`` says no children" means exactly "nothing is left".
* The control pipe's only writer is the server. A server that dies, by whatever signal, closes it.
* ``waitpid(-1)`` is right here and nowhere else: this process has no other children.
* A sandboxed command is shut in by its own forked process before its first instruction
  (`crush_trio/tools/sandbox/confine.py`); if that fails, it is not run.
* Where the server has a cgroup, the command gets a child of it before its first instruction: then
  the kernel itself knows the whole tree, and ends it at one word, faster than it can fork. This
  process stays outside, so that a command cannot be confused with who watches over it.

Arguments: control fd, status fd, read ends of the command's stdout and stderr, grace and total in
seconds, 1 to take LC_CTYPE (which the interpreter adds by itself) out of the environment, the
server's cgroup directory or nothing, the sandbox's file and the descriptor of its plan or two
empty words, argv.
Control bytes: ``k`` kill, ``d`` read the command's pipes from now on and forget what comes.
Status lines: ``started PID``, ``exited CODE ALIVE``, ``ended KILLED``, ``left PID START COMMAND``.

Without ``/proc`` (macOS) the command's process group stands for its tree.
"""

from __future__ import annotations

import os
import select
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
else:
    import _signal as signal  # without its enumerations, which take as long as all else here

PR_SET_CHILD_SUBREAPER = 36
RESCAN_S = 0.05  # between looks for processes that appeared while others were being ended
MARK = "CRUSH_TRIO_LAUNCHER"  # in every descendant's environment: "<pid>:<start time>"
HAS_PROC = os.path.exists("/proc/self/stat")


def stat_of(pid: int | str) -> tuple[bytes, int, int] | None:
    """State, parent and start time (ticks since boot) of a process, or ``None`` if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return None
    fields = text[text.rindex(b")") + 2 :].split()
    return fields[0], int(fields[1]), int(fields[19])


def descendants() -> dict[int, int]:
    """``{pid: start time}`` of every live process below this one."""
    children: dict[int, list[int]] = {}
    starts: dict[int, int] = {}
    for name in os.listdir("/proc") if HAS_PROC else ():
        stat = stat_of(name) if name.isdigit() else None
        if stat is not None:
            children.setdefault(stat[1], []).append(int(name))
            if stat[0] not in (b"Z", b"X"):
                starts[int(name)] = stat[2]
    found: dict[int, int] = {}
    todo = [os.getpid()]
    while todo:
        for pid in children.get(todo.pop(), ()):
            todo.append(pid)
            if pid in starts:
                found[pid] = starts[pid]
    return found


def make_group(server_group: str) -> str:
    """The command's own cgroup, named as `cgroup.py` expects; empty if it cannot be made."""
    own = stat_of(os.getpid())
    if not server_group or own is None:
        return ""
    path = f"{server_group}/{os.getpid()}-{own[2]}"
    try:
        os.makedirs(path)  # with the server's own, should somebody have tidied that away
    except OSError:
        return ""  # the subreaper alone has to do
    return path


def folders(group: str) -> list[str]:
    """A cgroup and those a command made below it, the innermost first."""
    return [folder for folder, _, _ in os.walk(group, topdown=False)] if group else []


def members(group: str) -> dict[int, int]:
    """``{pid: start time}`` of every live process in a cgroup and below it."""
    found: dict[int, int] = {}
    for folder in folders(group):
        try:
            with open(f"{folder}/cgroup.procs") as file:
                pids = file.read().split()
        except OSError:
            continue
        for pid in pids:
            stat = stat_of(pid)
            if stat is not None and stat[0] not in (b"Z", b"X"):
                found[int(pid)] = stat[2]
    return found


def write(path: str, word: str) -> bool:
    try:
        with open(path, "w") as file:
            file.write(word)
    except OSError:
        return False
    return True


def remove(group: str) -> None:
    for folder in folders(group):
        try:
            os.rmdir(folder)
        except OSError:
            return  # something is still in it: the server looks again


def send(pid: int, started: int, number: signal.Signals) -> None:
    """Signal the process that had this pid and start time, and no other."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return
    try:
        stat = stat_of(pid)
        if stat is not None and stat[2] == started:
            signal.pidfd_send_signal(handle, number)
    except OSError:
        return  # gone meanwhile, or not ours to signal: it is then named as left
    finally:
        os.close(handle)


class Launcher:
    """The command's tree, from its start until nothing of it is left."""

    def __init__(
        self,
        control: int,
        status: int,
        outputs: list[int],
        grace: float,
        total: float,
        group: str,
        sandbox: tuple[str, str],
    ) -> None:
        self.sandbox = sandbox
        self.control = control
        self.status = status
        self.outputs = outputs
        self.grace = grace
        self.total = total
        self.group = group
        self.shell = 0
        self.exited = False
        self.killed: set[tuple[int, int]] = set()
        self.draining = False
        self.stop_asked = False
        self.wake_read, wake_write = os.pipe()
        os.set_blocking(self.wake_read, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self.asked_by_signal)

    def asked_by_signal(self, *_: object) -> None:
        self.stop_asked = True

    def tell(self, line: str) -> None:
        try:
            os.write(self.status, line.encode("utf-8", "replace") + b"\n")
        except OSError:
            self.stop_asked = True  # nobody listens any more

    def start(self, argv: list[str]) -> None:
        self.shell = os.fork()
        if self.shell == 0:
            become(argv, self.group, self.sandbox)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 1)  # so that the command's processes are the only writers of its pipes
        os.dup2(null, 2)
        self.tell(f"started {self.shell}")

    def reap(self) -> bool:
        """Collect whatever has ended; say whether anything of the tree is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return not HAS_PROC and self.group_alive()
            if pid == 0:
                return True
            if pid == self.shell:
                self.exited = True
                code = os.waitstatus_to_exitcode(status)
                self.tell(f"exited {128 - code if code < 0 else code} {self.alive()}")

    def tree(self) -> dict[int, int]:
        """Everything that is left of the command, by either way of knowing it."""
        return {**members(self.group), **descendants()}

    def alive(self) -> int:
        """How many processes the shell has left behind."""
        if not HAS_PROC:
            return int(self.group_alive())
        return sum(not self.is_wrapping(pid) for pid in descendants())

    def is_wrapping(self, pid: int) -> bool:
        """Whether a process is the sandbox's own: the init of its PID namespace, or above it."""
        if not self.sandbox[0]:
            return False
        return is_init(pid) or (pid == self.shell and command_of(pid) == "bwrap")

    def group_alive(self) -> bool:
        try:
            os.killpg(self.shell, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True

    def signal_all(self, number: signal.Signals) -> None:
        if not HAS_PROC:
            self.killed.add((self.shell, 0))
            try:
                os.killpg(self.shell, number)
            except OSError:
                return
            return
        tree = self.tree()
        if number == signal.SIGKILL and self.group:
            write(f"{self.group}/cgroup.kill", "1")  # at one word, also what forks meanwhile
        for pid, started in tree.items():
            if self.is_wrapping(pid):
                # It ends with what it holds, or takes that with it: not before the grace is over.
                if number == signal.SIGKILL:
                    send(pid, started, number)
            elif number == signal.SIGKILL or (pid, started) not in self.killed:
                self.killed.add((pid, started))
                send(pid, started, number)
                send(pid, started, signal.SIGCONT)

    def wait(self, seconds: float | None) -> None:
        """Sleep until something ends or is asked, at most ``seconds`` (``None``: no bound)."""
        fds = [self.wake_read]
        if seconds is None:
            fds += [self.control, *(self.outputs if self.draining else ())]
        ready = select.select(fds, [], [], seconds)[0]
        if self.wake_read in ready:
            self.read(self.wake_read)
        if self.control in ready:
            data = self.read(self.control)
            self.stop_asked |= b"k" in data or not data
            self.draining |= b"d" in data
        for fd in [fd for fd in self.outputs if fd in ready]:
            if not self.read(fd):
                self.outputs.remove(fd)

    @staticmethod
    def read(fd: int) -> bytes:
        try:
            return os.read(fd, 65_536)
        except BlockingIOError:
            return b"?"

    def kill_tree(self) -> None:
        """TERM now, KILL after the grace, give up after the total."""
        began = time.monotonic()
        while self.reap() or members(self.group):
            spent = time.monotonic() - began
            if spent > self.total:
                break
            self.signal_all(signal.SIGTERM if spent < self.grace else signal.SIGKILL)
            self.wait(RESCAN_S)

    def run(self, argv: list[str]) -> None:
        self.start(argv)
        while not self.stop_asked and self.reap():
            self.wait(None)
        if self.reap() or members(self.group):
            self.kill_tree()
        remove(self.group)
        self.tell(f"ended {len(self.killed)}")
        for pid, started in self.tree().items():
            self.tell(f"left {pid} {started} {command_of(pid)}")


def command_of(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "?"


def is_init(pid: int) -> bool:
    """Whether a process is the first one of a PID namespace below ours."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            lines = file.read().split(b"\n")
    except OSError:
        return False
    pids = next((line.split()[1:] for line in lines if line.startswith(b"NSpid:")), [])
    return len(pids) > 1 and pids[-1] == b"1"


def confined(argv: list[str], group: str, sandbox: tuple[str, str]) -> list[str]:
    """Shut this process in as planned; what it is to become then.

    Bounds of its cgroup are set where the kernel has them there.

    Raises:
        OSError: It could not be done.
    """
    import marshal
    import types
    from importlib.machinery import SourceFileLoader

    module = types.ModuleType("confine")
    SourceFileLoader("confine", sandbox[0]).exec_module(module)
    with open(int(sandbox[1]), "rb") as file:
        plan = marshal.load(file)  # made by the same interpreter
    for name, bound in plan["group"].items() if group else ():
        write(f"{group}/{name}", bound)
    wrapped: list[str] = module.enter(plan, argv)
    return wrapped


def become(argv: list[str], group: str, sandbox: tuple[str, str]) -> None:
    """Turn this forked child into the command, in its cgroup and sandbox; never returns."""
    code = 126
    try:
        if group:
            write(f"{group}/cgroup.procs", "0")  # "0" is whoever writes it
        os.setsid()
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if sandbox[0]:
            argv = confined(argv, group, sandbox)
        os.execvpe(argv[0], argv, os.environ)
    except FileNotFoundError:
        code = 127
        os.write(2, f"{argv[0]}: not found\n".encode("utf-8", "replace"))
    except OSError as problem:
        os.write(2, f"{argv[0]}: {problem.strerror}\n".encode("utf-8", "replace"))
    finally:
        os._exit(code)


def prctl(option: int, value: int) -> None:
    try:
        import _ctypes  # without what `ctypes` imports, which takes as long as all else here

        itself = _ctypes.dlopen(None, 0)  # type: ignore[arg-type]  # None is this program
        _ctypes.call_function(_ctypes.dlsym(itself, "prctl"), (option, value, 0, 0, 0))
    except (ImportError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def main() -> None:
    control, status, out, err = (int(text) for text in sys.argv[1:5])
    grace, total = float(sys.argv[5]), float(sys.argv[6])
    if sys.argv[7] == "1":
        os.environ.pop("LC_CTYPE", None)
    for fd in (control, status, out, err):
        os.set_inheritable(fd, False)
    if HAS_PROC:
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        own = stat_of(os.getpid())
        os.environ[MARK] = f"{os.getpid()}:{own[2] if own else 0}"
    group = make_group(sys.argv[8])
    sandbox = (sys.argv[9], sys.argv[10])
    if sandbox[1]:
        os.set_inheritable(int(sandbox[1]), False)
    Launcher(control, status, [out, err], grace, total, group, sandbox).run(sys.argv[11:])
    os._exit(0)  # nothing here needs the interpreter's own end, which takes longer


if __name__ == "__main__":
    main()
