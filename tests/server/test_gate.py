"""The gate's rules as tables (threats T1-T7), on the pure function and on a real TCP socket."""

from __future__ import annotations

import base64
import itertools
import os
from pathlib import Path

import pytest
import trio
from quart_trio.wrappers import TrioResponse

from crush_trio.server.edge import tokens as tokens_module
from crush_trio.server.edge.answers import json_response
from crush_trio.server.edge.app_base import EdgeApp, create_quart_app
from crush_trio.server.edge.call import accept_websocket, current_call
from crush_trio.server.edge.gate import Gate, RequestView
from crush_trio.server.edge.peer import Peer
from crush_trio.server.edge.sockets import TcpBind
from crush_trio.server.edge.tokens import Tokens
from tests.server.edge_kit import TOKEN, serving

UID = os.getuid()
OURS = Peer("unix", is_unix=True, pid=os.getpid(), uid=UID, gid=0)
REMOTE = Peer("127.0.0.1", is_unix=False)
BEARER = ("authorization", f"Bearer {TOKEN}")
HOST = ("host", "localhost:7777")
JSON = ("content-type", "application/json")
BODY = ("content-length", "2")
PAGE = "https://ui.example.com"
GATE = Gate(
    uid=UID,
    tokens=Tokens({"alice": TOKEN, "bob": "another-token-of-bobs"}),
    bound=frozenset({("127.0.0.1", 7777), ("devbox.lan", 7777), ("::1", 7777)}),
    allowed_hosts=frozenset({"proxy.example.com", "Edge.Example.com:8443"}),
    allowed_origins=frozenset({PAGE}),
)


def tcp(
    *headers: tuple[str, str],
    method: str = "GET",
    target: str = "/v1/version",
    local: tuple[str, int] = ("127.0.0.1", 7777),
    is_websocket: bool = False,
) -> RequestView:
    return RequestView(method, target, target, headers, REMOTE, local, is_websocket)


def code_of(gate: Gate, view: RequestView) -> str | None:
    refused = gate.judge(view).refused
    return None if refused is None else refused.code


# --- TCP: token, origin, content type ------------------------------------------------------

TYPES = {
    "application/json": True,
    "Application/JSON; charset=utf-8": True,
    "application/json-patch+json": False,
    "text/plain": False,
    "application/x-www-form-urlencoded": False,
    "multipart/form-data; boundary=x": False,
    None: False,
}
ORIGINS = {None: True, PAGE: True, "null": False, "https://evil.example": False}
AUTHORIZATIONS = {f"Bearer {TOKEN}": True, "Bearer wrong-wrong-wrong-wrong": False, None: False}
MATRIX = list(itertools.product(TYPES, ORIGINS, AUTHORIZATIONS))


def expected(kind: str | None, origin: str | None, authorization: str | None) -> str | None:
    if not ORIGINS[origin]:
        return "forbidden_origin"
    if not AUTHORIZATIONS[authorization]:
        return "unauthorized"
    return None if TYPES[kind] else "unsupported_media_type"


async def test_no_combination_of_headers_but_the_right_ones_reaches_a_handler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tokens_module, "AUTH_DELAY_FIRST_S", 0.0)
    app = create_quart_app(GATE)
    entered = 0

    @app.post("/v1/control")
    async def control() -> TrioResponse:
        nonlocal entered
        entered += 1
        return json_response(b"1")

    assert len(MATRIX) >= 48
    async with serving(app, TcpBind("127.0.0.1", 0)) as server:
        bound = frozenset({("127.0.0.1", server.port)})
        app.gate = Gate(UID, GATE.tokens, bound, allowed_origins=GATE.allowed_origins)
        for kind, origin, authorization in MATRIX:
            named = {"Content-Type": kind, "Origin": origin, "Authorization": authorization}
            headers = {name: value for name, value in named.items() if value is not None}
            before = entered
            wire = await server.connect()
            answer = await wire.request(
                "POST", "/v1/control", headers, b"{}", f"127.0.0.1:{server.port}"
            )
            wire.close()
            wanted = expected(kind, origin, authorization)
            assert (answer.json if wanted is None else answer.code) == (wanted or 1), headers
            assert entered == before + (wanted is None), headers


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([BEARER, JSON], None),
        ([("authorization", f"bearer  {TOKEN}"), JSON], None),
        ([("authorization", f"Basic {TOKEN}"), JSON], "unauthorized"),
        ([("authorization", TOKEN), JSON], "unauthorized"),
        ([("authorization", "Bearer "), JSON], "unauthorized"),
        ([("authorization", f"Bearer {TOKEN}x"), JSON], "unauthorized"),
        ([("authorization", f"Bearer {TOKEN[:-1]}"), JSON], "unauthorized"),
        ([BEARER, BEARER, JSON], "unauthorized"),
        ([("cookie", f"token={TOKEN}"), JSON], "unauthorized"),
        ([("x-forwarded-for", "10.0.0.1"), BEARER, JSON], None),
        ([BEARER, JSON, ("content-type", "text/plain")], "unsupported_media_type"),
        ([BEARER, ("sec-fetch-site", "cross-site"), JSON], "forbidden_origin"),
        ([BEARER, ("sec-fetch-site", "same-site"), JSON], "forbidden_origin"),
        ([BEARER, ("sec-fetch-site", "none"), JSON], None),
        ([BEARER, ("sec-fetch-site", "cross-site"), ("origin", PAGE), JSON], None),
        ([BEARER, ("origin", PAGE), ("origin", PAGE), JSON], "forbidden_origin"),
    ],
)
def test_a_state_changing_request_needs_token_and_type(
    headers: list[tuple[str, str]], code: str | None
) -> None:
    assert code_of(GATE, tcp(HOST, BODY, *headers, method="POST")) == code


def test_a_post_without_a_body_needs_no_content_type() -> None:
    for headers in ([], [("content-length", "0")], [("content-type", "text/plain")]):
        assert code_of(GATE, tcp(HOST, BEARER, *headers, method="POST")) is None
    chunked = ("transfer-encoding", "chunked")
    assert code_of(GATE, tcp(HOST, BEARER, chunked, method="POST")) == "unsupported_media_type"


def test_the_principal_is_the_name_of_the_token() -> None:
    bob = ("authorization", "Bearer another-token-of-bobs")
    assert GATE.judge(tcp(HOST, BEARER)).principal == "alice"
    assert GATE.judge(tcp(HOST, bob)).principal == "bob"


def test_only_the_health_route_answers_without_a_token_and_still_checks_the_host() -> None:
    assert code_of(GATE, tcp(HOST, target="/healthz")) is None
    assert GATE.judge(tcp(HOST, target="/healthz")).principal is None
    evil = ("origin", "https://evil.example")
    assert code_of(GATE, tcp(HOST, evil, target="/healthz")) == "forbidden_origin"
    assert code_of(GATE, tcp(("host", "evil:7777"), target="/healthz")) == "misdirected"
    for other in ("/readyz", "/metrics", "/v1/health", "/openapi.json", "/healthz/", "/"):
        assert code_of(GATE, tcp(HOST, target=other)) == "unauthorized"
    assert code_of(GATE, tcp(HOST, target="/healthz", is_websocket=True)) == "unauthorized"
    assert code_of(GATE, tcp(HOST, target="/healthz", method="POST")) == "unauthorized"


# --- TCP: Host and target ------------------------------------------------------------------

HOSTS = [
    ("localhost:7777", True),
    ("LOCALHOST:7777", True),
    ("127.0.0.1:7777", True),
    ("[::1]:7777", True),
    ("[0:0:0:0:0:0:0:1]:7777", True),
    ("devbox.lan:7777", True),
    ("DevBox.LAN:7777", True),
    ("proxy.example.com", True),
    ("proxy.example.com:443", True),
    ("edge.example.com:8443", True),
    ("edge.example.com", False),
    ("edge.example.com:443", False),
    ("localhost", False),
    ("localhost:7778", False),
    ("localhost:77777777", False),
    ("localhost:", False),
    ("localhost.:7777", False),
    ("devbox.lan.:7777", False),
    ("evil.example:7777", False),
    ("localhost.evil.example:7777", False),
    ("localhost:7777.evil.example", False),
    ("user@localhost:7777", False),
    ("localhost:7777@evil.example", False),
    ("localhost:7777/", False),
    ("http://localhost:7777", False),
    ("127.1:7777", False),
    ("2130706433:7777", False),
    ("0x7f.0.0.1:7777", False),
    ("0177.0.0.1:7777", False),
    ("0.0.0.0:7777", False),
    ("10.0.0.5:7777", False),
    ("[::ffff:10.0.0.5]:7777", False),
    ("::1:7777", False),
    ("localhost:7777, evil.example", False),
    ("localhost 7777", False),
    ("", False),
]


@pytest.mark.parametrize(("host", "taken"), HOSTS)
def test_a_host_must_be_a_name_of_this_server(host: str, taken: bool) -> None:
    assert code_of(GATE, tcp(("host", host), BEARER)) == (None if taken else "misdirected")


@pytest.mark.parametrize(
    ("headers", "target", "code"),
    [
        ([], "/v1/version", "misdirected"),
        ([HOST, HOST], "/v1/version", "misdirected"),
        ([HOST, ("host", "evil:7777")], "/v1/version", "misdirected"),
        ([HOST], "http://localhost:7777/v1/version", None),
        ([HOST], "HTTP://LOCALHOST:7777/v1/version", None),
        ([HOST], "http://evil.example:7777/v1/version", "misdirected"),
        ([HOST], "http://localhost:7777@evil.example/v1/version", "misdirected"),
        ([HOST], "http:///v1/version", "misdirected"),
        ([("host", "evil.example:7777")], "http://localhost:7777/v1/version", "misdirected"),
        ([], "http://localhost:7777/v1/version", "misdirected"),
        ([HOST], "localhost:7777", "bad_request"),
        ([HOST], "*", "bad_request"),
        ([HOST], "ftp://localhost:7777/", "bad_request"),
        ([HOST], "", "bad_request"),
    ],
)
def test_duplicate_hosts_and_absolute_targets_are_judged(
    headers: list[tuple[str, str]], target: str, code: str | None
) -> None:
    assert code_of(GATE, tcp(*headers, BEARER, target=target)) == code


def test_the_address_a_connection_came_in_on_is_a_name_of_the_server() -> None:
    gate = Gate(UID, GATE.tokens, bound=frozenset({("0.0.0.0", 7777)}))
    came_in = ("192.168.1.20", 7777)
    assert code_of(gate, tcp(("host", "192.168.1.20:7777"), BEARER, local=came_in)) is None
    other = tcp(("host", "192.168.1.21:7777"), BEARER, local=came_in)
    assert code_of(gate, other) == "misdirected"


def test_checks_come_in_order_host_origin_token_type() -> None:
    wrong = [
        ("misdirected", ("host", "evil"), HOST),
        ("forbidden_origin", ("origin", "null"), ("origin", PAGE)),
        ("unauthorized", ("authorization", "Bearer no"), BEARER),
        ("unsupported_media_type", ("content-type", "text/plain"), JSON),
    ]
    headers = [bad for _, bad, _ in wrong]
    for place, (code, _, good) in enumerate(wrong):
        assert code_of(GATE, tcp(*headers, BODY, method="POST")) == code
        headers[place] = good
    assert code_of(GATE, tcp(*headers, BODY, method="POST")) is None


# --- TCP: websockets -----------------------------------------------------------------------

NOT_OUR_ORIGIN = [
    "null",
    "",
    "*",
    "https://evil.example",
    "https://UI.example.com",
    "HTTPS://ui.example.com",
    "http://ui.example.com",
    "https://ui.example.com:443",
    "https://ui.example.com:8443",
    "https://ui.example.com/",
    "https://ui.example.com/path",
    "https://ui.example.com.",
    "https://ui.example.com.evil.example",
    "https://evil.example/https://ui.example.com",
    "https://user@ui.example.com",
    "https://ui.example.com@evil.example",
    "https://xn--i-2xa.example.com",
    "https://ui.example.com https://evil.example",
    "https://ui.example.com, https://evil.example",
    "//ui.example.com",
    "ui.example.com",
    "https:ui.example.com",
    "https://localhost:7777",
    "http://127.0.0.1:7777",
    "http://[::1]:7777",
    "file://",
    "chrome-extension://abcdef",
    "moz-extension://abcdef",
    "data:",
    "about:blank",
]


def subprotocol(token: str) -> str:
    return "crush-trio.token." + base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")


@pytest.mark.parametrize("origin", NOT_OUR_ORIGIN)
def test_a_foreign_origin_opens_no_websocket_even_with_a_token(origin: str) -> None:
    offered = ("sec-websocket-protocol", f"crush-trio.v1, {subprotocol(TOKEN)}")
    view = tcp(HOST, offered, ("origin", origin), is_websocket=True)
    assert code_of(GATE, view) == "forbidden_origin"


@pytest.mark.parametrize(
    ("headers", "principal"),
    [
        ([("origin", PAGE), ("sec-websocket-protocol", subprotocol(TOKEN))], "alice"),
        ([("sec-websocket-protocol", f"crush-trio.v1,{subprotocol(TOKEN)}")], "alice"),
        (
            [
                ("sec-websocket-protocol", "crush-trio.v1"),
                ("sec-websocket-protocol", subprotocol(TOKEN)),
            ],
            "alice",
        ),
        ([BEARER, ("sec-websocket-protocol", subprotocol("wrong"))], "alice"),
        ([("sec-websocket-protocol", subprotocol(TOKEN + "="))], None),
        ([("sec-websocket-protocol", f"{subprotocol(TOKEN)}, {subprotocol(TOKEN)}")], None),
        ([("sec-websocket-protocol", f"crush-trio.token.{TOKEN}")], None),
        ([("sec-websocket-protocol", "crush-trio.token.")], None),
        ([("sec-websocket-protocol", "crush-trio.token.é")], None),
        ([("authorization", "Bearer wrong"), ("sec-websocket-protocol", subprotocol(TOKEN))], None),
        ([("origin", PAGE)], None),
    ],
)
def test_a_websocket_may_bring_its_token_as_a_subprotocol(
    headers: list[tuple[str, str]], principal: str | None
) -> None:
    assert GATE.judge(tcp(HOST, *headers, is_websocket=True)).principal == principal


def test_a_token_as_a_subprotocol_counts_for_websockets_only() -> None:
    offered = ("sec-websocket-protocol", subprotocol(TOKEN))
    assert code_of(GATE, tcp(HOST, offered)) == "unauthorized"


# --- the unix socket -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (("host", "api.crush.localhost"), None),
        (("host", "anything at all"), None),
        (("content-type", "text/plain"), None),
        (("x-forwarded-proto", "https"), None),
        (("origin", "null"), "forbidden_origin"),
        (("origin", PAGE), "forbidden_origin"),
        (("origin", ""), "forbidden_origin"),
        (("sec-fetch-site", "none"), "forbidden_origin"),
        (("sec-fetch-site", "same-origin"), "forbidden_origin"),
        (("forwarded", "for=10.0.0.1"), "forwarded"),
        (("x-forwarded-for", "10.0.0.1"), "forwarded"),
    ],
)
def test_on_the_unix_socket_headers_of_browsers_and_proxies_are_refused(
    header: tuple[str, str], code: str | None
) -> None:
    for method, is_websocket in [("GET", False), ("POST", False), ("GET", True)]:
        view = RequestView(method, "/v1/x", "/v1/x", (header, BODY), OURS, None, is_websocket)
        assert code_of(GATE, view) == code


@pytest.mark.parametrize(
    ("uid", "principal"), [(UID, "local"), (0, "local"), (UID + 1, None), (None, None)]
)
def test_the_unix_socket_serves_its_owner_and_root(uid: int | None, principal: str | None) -> None:
    peer = Peer("unix", is_unix=True, pid=os.getpid(), uid=uid, gid=0)
    verdict = GATE.judge(RequestView("GET", "/v1/x", "/v1/x", (), peer))
    assert verdict.principal == principal
    if verdict.refused is not None:
        assert verdict.refused.code == "forbidden"


def test_a_tool_of_this_server_may_not_drive_it() -> None:
    running: set[int] = set()
    gate = Gate(UID, tool_launchers=lambda: running)
    view = RequestView("GET", "/v1/x", "/v1/x", (), OURS)
    assert code_of(gate, view) is None
    running.add(os.getppid())
    assert code_of(gate, view) == "from_tool"
    assert code_of(gate, tcp(HOST)) == "misdirected"  # by TCP it has no name here, and no token


# --- over the wire -------------------------------------------------------------------------


@pytest.fixture
def app() -> EdgeApp:
    app = create_quart_app(GATE)

    @app.get("/v1/who")
    async def who() -> TrioResponse:
        return json_response(b'"%s"' % current_call().principal.encode())

    @app.websocket("/v1/ws")
    async def ws() -> None:
        await accept_websocket()

    return app


UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@pytest.mark.parametrize(
    ("headers", "host", "status", "code"),
    [
        ({}, None, 401, "unauthorized"),
        ({"Authorization": "Bearer wrong"}, None, 401, "unauthorized"),
        ({"Authorization": f"Bearer {TOKEN}", "Origin": "null"}, None, 403, "forbidden_origin"),
        ({"Authorization": f"Bearer {TOKEN}"}, "evil.example", 421, "misdirected"),
    ],
)
async def test_a_websocket_is_refused_with_json_before_the_upgrade(
    app: EdgeApp,
    headers: dict[str, str],
    host: str | None,
    status: int,
    code: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tokens_module, "AUTH_DELAY_FIRST_S", 0.0)
    async with serving(app, TcpBind("127.0.0.1", 0)) as server:
        app.gate = Gate(UID, GATE.tokens, server.socket.names)
        wire = await server.connect()
        named = host or f"127.0.0.1:{server.port}"
        answer = await wire.request("GET", "/v1/ws", {**UPGRADE, **headers}, host=named)
        assert (answer.status, answer.code) == (status, code)
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert ("www-authenticate" in answer.headers) == (status == 401)
        assert await wire.seconds_to_eof(within=3) < 2


async def test_an_accepted_websocket_gets_our_subprotocol_and_never_the_token(
    app: EdgeApp,
) -> None:
    offered = f"{subprotocol(TOKEN)}, crush-trio.v1"
    async with serving(app, TcpBind("127.0.0.1", 0)) as server:
        app.gate = Gate(UID, GATE.tokens, server.socket.names)
        wire = await server.connect()
        lines = [f"{name}: {value}" for name, value in UPGRADE.items()]
        lines += [f"Host: 127.0.0.1:{server.port}", f"Sec-WebSocket-Protocol: {offered}"]
        await wire.send("GET /v1/ws HTTP/1.1\r\n" + "\r\n".join(lines) + "\r\n\r\n")
        head = (await wire.stream.receive_some(4096)).decode("latin1").lower()
        assert head.startswith("http/1.1 101")
        assert "sec-websocket-protocol: crush-trio.v1\r\n" in head
        assert "token" not in head


async def test_wrong_tokens_wait_longer_each_time_and_right_ones_never(app: EdgeApp) -> None:
    async with serving(app, TcpBind("127.0.0.1", 0)) as server:
        app.gate = Gate(UID, GATE.tokens, server.socket.names)
        host = f"127.0.0.1:{server.port}"
        took: list[float] = []

        async def ask(token: str) -> int:
            wire = await server.connect()
            headers = {"Authorization": f"Bearer {token}"}
            return (await wire.request("GET", "/v1/who", headers, host=host)).status

        for _ in range(2):
            began = trio.current_time()
            assert await ask("wrong") == 401
            took.append(trio.current_time() - began)
        assert took[0] >= 0.2
        assert took[1] >= 0.4
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "wrong")
            await trio.sleep(0.05)
            began = trio.current_time()
            assert await ask(TOKEN) == 200
            assert trio.current_time() - began < 0.3
            nursery.cancel_scope.cancel()


async def test_a_refused_body_is_not_read(app: EdgeApp, tmp_path: Path) -> None:
    async with serving(app, tmp_path) as server:
        wire = await server.connect()
        head = (
            "POST /v1/who HTTP/1.1\r\nHost: x\r\nOrigin: null\r\nContent-Length: 99999999\r\n\r\n"
        )
        await wire.send(head)
        with trio.fail_after(2):
            answer = await wire.answer()
        assert (answer.status, answer.code) == (403, "forbidden_origin")
        assert answer.headers["connection"] == "close"
        assert await wire.seconds_to_eof(within=3) < 2
