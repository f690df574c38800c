"""The composition root: the nested blocks of a server's life, and the signals that end it."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import platform
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import trio

from crush_trio import __version__, limits
from crush_trio.host.host import Host, HostOptions, open_host
from crush_trio.http.connections import Connections
from crush_trio.journal import Journal
from crush_trio.protocol.errors import CrushError
from crush_trio.protocol.ids import new_id
from crush_trio.protocol.requests import VersionInfo
from crush_trio.protocol.sockets import default_socket_path
from crush_trio.protocol.version import PROTOCOL
from crush_trio.server.edge.access_log import ACCESS_LOG_FILE, AccessLog, PrivateRotatingFile
from crush_trio.server.edge.app_base import EdgeApp, create_quart_app
from crush_trio.server.edge.gate import Gate
from crush_trio.server.edge.hypercorn_fixes import serve_http
from crush_trio.server.edge.sockets import BoundSocket, TcpBind, UnixBind, bind, parse_host
from crush_trio.server.edge.tokens import load_tokens
from crush_trio.server.kit import ServerKit
from crush_trio.server.options import ServeOptions
from crush_trio.server.private_process import keep_private
from crush_trio.server.providers.models import Models
from crush_trio.server.routes import (
    agent,
    clients,
    config,
    crush,
    doctor,
    events,
    jobs,
    kinds,
    outputs,
    permissions,
    prompts,
    questions,
    queue,
    runs,
    sessions,
    stream,
    system,
    whole,
    workspaces,
)
from crush_trio.server.services import Services
from crush_trio.server.settings import Settings, certificates_file
from crush_trio.server.watchdog import Budget, start_watchdog
from crush_trio.store.sqlite import SqliteStore, open_store
from crush_trio.tools.processes.cgroup import process_control, server_cgroup
from crush_trio.tools.processes.spill import SpillArea
from crush_trio.tools.web.web import Web

logger = logging.getLogger("crush_trio")

EXIT_CANNOT_START = 4
EXIT_STORE_FAILED = 75
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@attrs.define(eq=False)
class Stop:
    """Why and when the server stops; the first reason wins.

    ``timeout_s`` bounds what comes after it, also if that is the rest of a start.
    """

    timeout_s: float
    event: trio.Event = attrs.field(factory=trio.Event)
    reason: str = ""

    def request(self, reason: str) -> None:
        """Begin the shutdown. Never waits, idempotent."""
        if not self.event.is_set():
            self.reason = reason
            logger.info("stopping: %s", reason)
            start_watchdog(self.timeout_s + limits.WATCHDOG_EXTRA_S)
            self.event.set()


async def serve(options: ServeOptions) -> int:
    """Run a server until a signal, a ``stop`` or a dead store; its exit code (contract 6)."""
    keep_private()
    stop = Stop(options.shutdown_timeout_s)
    failed: BaseException | None = None
    with contextlib.ExitStack() as cleanup:
        try:
            async with (
                _open_parts(options, cleanup) as (store, journal, kit),
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(_stop_on_signal, stop)
                nursery.start_soon(_stop_on_dead_store, store, stop)
                try:
                    await _serve_with(options, store, journal, kit, stop)
                finally:
                    nursery.cancel_scope.cancel()
        except* CrushError as group:
            failed = _first(group)
    if failed is not None:
        print(f"crush-trio: {failed}", file=sys.stderr)  # noqa: T201  # for whoever started it
        return EXIT_CANNOT_START
    return EXIT_STORE_FAILED if stop.reason == "store" else 0


@asynccontextmanager
async def _open_parts(
    options: ServeOptions, cleanup: contextlib.ExitStack
) -> AsyncIterator[tuple[SqliteStore, Journal, ServerKit]]:
    journal = Journal()
    async with open_store(
        options.data_dir,
        durability=options.durability,
        publish=journal.publish,
        closing_s=Budget.of(options.shutdown_timeout_s).store_s,
    ) as store:
        cleanup.enter_context(_logging_to(options.data_dir, verbose=options.verbose))
        ca_file = await trio.to_thread.run_sync(certificates_file)
        async with server_cgroup(options.data_dir) as cgroup, Connections(ca_file) as connections:
            logger.info("tool processes are kept together by %s", process_control(cgroup))
            outputs = SpillArea(options.data_dir / "outputs")
            kit = ServerKit(
                options.data_dir,
                outputs,
                Models(options.data_dir, connections),
                cgroup,
                Web(connections.certificates),
            )
            await trio.to_thread.run_sync(kit.tidy)
            yield store, journal, kit


async def _serve_with(
    options: ServeOptions, store: SqliteStore, journal: Journal, kit: ServerKit, stop: Stop
) -> None:
    """The nesting that is the shutdown order: host inside HTTP inside store (G11)."""
    http_stop = trio.Event()
    budget = Budget.of(options.shutdown_timeout_s)
    host_options = HostOptions(options.idle_timeout_s, options.requeue_within_s, budget.runs_s)
    with contextlib.ExitStack() as sockets:
        async with trio.open_nursery() as http:
            try:
                async with open_host(store, journal, kit, host_options) as host:
                    services = _services(options, host, store, kit, stop)
                    bound = [sockets.enter_context(each) for each in _bind_all(options)]
                    access_log = AccessLog(options.data_dir / ACCESS_LOG_FILE)
                    sockets.callback(access_log.close)
                    app = _create_app(options, services, kit, bound, access_log)
                    await http.start(
                        partial(
                            serve_http,
                            app,
                            [each.listener for each in bound],
                            stop=http_stop,
                            graceful_timeout_s=budget.http_s,
                        )
                    )
                    kit.web.own_ports.update(port for each in bound for _, port in each.names)
                    store.announce(bound[0].url)
                    _spare_the_collector()
                    _announce(bound)
                    if options.idle_exit_s is not None:
                        host.nursery.start_soon(_stop_when_idle, host, options.idle_exit_s, stop)
                    host.nursery.start_soon(services.settings.watch)
                    await stop.event.wait()
                    # One step: refuse new prompts, and be found by nobody any more.
                    host.stop()
                    for each in bound:
                        each.retire()
                    http.start_soon(_end_http, host, budget, http_stop)  # noqa: ASYNC111  # it waits for the host's end, and uses nothing that ends with it
            except BaseException:
                http_stop.set()
                raise


async def _end_http(host: Host, budget: Budget, http_stop: trio.Event) -> None:
    """Say goodbye to subscribers, then end HTTP.

    Beside the host and not after it: a run that cannot be ended, because a model or a tool of
    ours shields itself, must not keep subscribers and requests waiting.
    """
    with trio.move_on_after(budget.runs_s):
        await host.wait_closed()
    host.end_feeds()
    with trio.move_on_after(budget.subscribers_s):
        await host.wait_no_subscribers()
    http_stop.set()


def _services(
    options: ServeOptions, host: Host, store: SqliteStore, kit: ServerKit, stop: Stop
) -> Services:
    version = VersionInfo(
        version=__version__,
        commit="unknown",
        build_id=__version__,
        go_version="",
        platform=f"{platform.system().lower()}/{platform.machine()}",
        protocol=PROTOCOL,
        server_id=new_id(),
        pid=os.getpid(),
        process_control=process_control(kit.cgroup),
    )
    settings = Settings(host, kit, options.data_dir)
    return Services(host, store, kit, options, version, stop.event, stop.request, settings)


def _bind_all(options: ServeOptions) -> Iterator[BoundSocket]:
    default = UnixBind(default_socket_path(options.data_dir, os.environ, os.getuid()))
    addresses = [parse_host(url) for url in options.hosts] or [default]
    for address in addresses:
        yield bind(address, insecure_plaintext=options.insecure_plaintext)


def _create_app(
    options: ServeOptions,
    services: Services,
    kit: ServerKit,
    bound: Sequence[BoundSocket],
    access_log: AccessLog,
) -> EdgeApp:
    addresses = [parse_host(url) for url in options.hosts]
    tokens = None
    if any(isinstance(address, TcpBind) for address in addresses):
        tokens = load_tokens(options.data_dir, os.environ, os.getuid(), options.token_file)
    gate = Gate(
        uid=os.getuid(),
        tokens=tokens,
        bound=frozenset(name for each in bound for name in each.names),
        allowed_hosts=frozenset(options.allowed_hosts),
        allowed_origins=frozenset(options.allowed_origins),
        tool_launchers=kit.launcher_pids,
        in_tool_cgroup=kit.is_tool,
    )
    app = create_quart_app(gate, access_log)
    for routes in (
        *(system, agent, workspaces, sessions, clients, crush, config),
        *(runs, queue, prompts, stream, events, whole),
        *(permissions, questions, kinds, jobs, outputs, doctor),
    ):
        routes.add_routes(app, services)
    return app


def _spare_the_collector() -> None:
    """Do not look through what lives as long as the server, and look more rarely at the rest.

    At 100 subscribers and 100 events a second this halves the slowest hundredth of the deliveries
    (docs/performance.md); with 1,000 sockets a full collection costs more than all the sending.
    """
    gc.freeze()
    gc.set_threshold(limits.GC_YOUNG_ALLOCATIONS, limits.GC_MIDDLE_ROUNDS, limits.GC_OLD_ROUNDS)


def _announce(bound: Sequence[BoundSocket]) -> None:
    """Say where we listen; the first line is the readiness signal (contract 6)."""
    for each in bound:
        print(f"listening on {each.url}", flush=True)  # noqa: T201  # the contract's ready line
        logger.info("listening on %s", each.url)


# --- what stops a server ------------------------------------------------------------------


async def _stop_on_signal(stop: Stop) -> None:
    with trio.open_signal_receiver(*_SIGNALS) as signals:
        async for number in signals:
            stop.request(signal.Signals(number).name)
            break
    # From here on the kernel serves a second signal: it ends the process at once (G11).
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)


async def _stop_on_dead_store(store: SqliteStore, stop: Stop) -> None:
    await store.failed.wait()
    stop.request("store")


async def _stop_when_idle(host: Host, idle_exit_s: float, stop: Stop) -> None:
    while not stop.event.is_set():
        expires = host.last_used + idle_exit_s
        if host.is_idle() and trio.current_time() >= expires:
            stop.request("idle")
            return
        wait_s = max(expires - trio.current_time(), min(idle_exit_s, limits.IDLE_LOOK_S))
        with trio.move_on_after(wait_s):
            await stop.event.wait()


# --- logging ------------------------------------------------------------------------------


@contextlib.contextmanager
def _logging_to(data_dir: Path, *, verbose: bool) -> Iterator[None]:
    """Our log lines go to ``server.log`` in the data directory, and to stderr when verbose."""
    handlers: list[logging.Handler] = [
        PrivateRotatingFile(
            data_dir / "server.log",
            maxBytes=limits.SERVER_LOG_BYTES,
            backupCount=limits.SERVER_LOG_FILES,
            encoding="utf-8",
        )
    ]
    if verbose:
        handlers.append(logging.StreamHandler())
    form = logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s")
    for handler in handlers:
        handler.setFormatter(form)
        logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    try:
        yield
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
