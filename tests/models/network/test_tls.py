"""Whom we believe: real handshakes with real certificates, made for the moment."""

from __future__ import annotations

import datetime
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trustme

from crush_trio.agent.ports import ModelError, ModelEvent, StreamReset
from crush_trio.cli.exit_codes import CONFIGURATION, exit_code
from crush_trio.http.connections import Connections
from tests.models.kit import request
from tests.models.network.kit import HELLO, model_at, say, text_of
from tests.models.network.provider import (
    STREAM,
    Answering,
    FakeProvider,
    fake_provider,
    head,
    in_turn,
    sending,
    streaming,
)

HELLO_ANSWER = streaming(*HELLO)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def authority_file(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "company.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


def secured(
    certificate: trustme.LeafCert,
) -> Callable[[trio.abc.Stream], Awaitable[trio.abc.Stream]]:
    """Makes a connection secure with this certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)

    async def secure(stream: trio.abc.Stream) -> trio.abc.Stream:
        tls = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        await tls.do_handshake()
        return tls

    return secure


@asynccontextmanager
async def https_provider(
    authority: trustme.CA,
    *names: str,
    answer: Answering = HELLO_ANSWER,
    until: datetime.datetime | None = None,
) -> AsyncIterator[FakeProvider]:
    """A provider with a certificate for these names, by default for the address it has."""
    certificate = authority.issue_cert(*(names or ("127.0.0.1",)), not_after=until)
    async with fake_provider(answer, tls=secured(certificate)) as provider:
        yield provider


async def refusal(provider: FakeProvider, connections: Connections) -> ModelError:
    """What asking ends with; exit 4, and asked once."""
    with pytest.raises(ModelError) as caught:
        await model_at(provider.url, connections).stream(request(), lambda _: None)
    error = caught.value
    assert (error.code, error.retryable, provider.exchanges) == ("provider_tls", False, [])
    assert exit_code({"outcome": "failed", "error": {"code": error.code}}) == CONFIGURATION
    assert connections.open_connections == (0, 0)
    return error


async def hello(provider: FakeProvider, connections: Connections) -> str:
    events: list[ModelEvent] = []
    await model_at(provider.url, connections).stream(request(), events.append)
    return text_of(events)


async def test_an_authority_nobody_knows_is_not_trusted(authority: trustme.CA) -> None:
    async with https_provider(authority) as provider, Connections(environ={}) as connections:
        error = await refusal(provider, connections)
    assert error.message == (
        "127.0.0.1 cannot be trusted: its certificate comes from an authority that is not trusted "
        "here (checked with the system's certificates); if that is right, add its authority with "
        "options.ca_file."
    )


async def test_the_sentence_names_each_file_that_was_used(
    authority: trustme.CA, tmp_path: Path
) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    async with (
        https_provider(authority) as provider,
        Connections(other, {"SSL_CERT_FILE": str(other)}) as connections,
    ):
        error = await refusal(provider, connections)
    used = f"the system's certificates and {other} (SSL_CERT_FILE) and {other} (options.ca_file)"
    assert f"(checked with {used})" in error.message


async def test_an_added_authority_is_trusted(authority: trustme.CA, authority_file: Path) -> None:
    async with (
        https_provider(authority) as provider,
        Connections(authority_file, {}) as configured,
        Connections(environ={"SSL_CERT_FILE": str(authority_file)}) as environment,
    ):
        assert await hello(provider, configured) == "Hello."
        assert await hello(provider, configured) == "Hello."
        assert provider.connections == 1  # and kept
        assert await hello(provider, environment) == "Hello."


@pytest.fixture
def authority_directory(authority_file: Path) -> Path:
    """The authority in a directory as OpenSSL wants it: files are named by their hashes."""
    if shutil.which("openssl") is None:
        pytest.skip("only the openssl command knows those hashes")
    command = ["openssl", "x509", "-noout", "-hash", "-in", str(authority_file)]
    made = subprocess.run(command, check=True, capture_output=True, text=True, timeout=10)
    authority_file.rename(authority_file.with_name(f"{made.stdout.strip()}.0"))
    return authority_file.parent


async def test_a_directory_of_authorities_is_added(
    authority: trustme.CA, authority_directory: Path
) -> None:
    environ = {"SSL_CERT_DIR": str(authority_directory)}
    async with https_provider(authority) as provider, Connections(environ=environ) as connections:
        assert await hello(provider, connections) == "Hello."


async def test_what_is_added_replaces_nothing(authority_file: Path) -> None:
    """A company's own authority does not cut off the rest of the world."""
    plain = await Connections(environ={}).certificates.context()
    environ = {"SSL_CERT_FILE": str(authority_file)}
    more = await Connections(authority_file, environ).certificates.context()
    counts = [context.cert_store_stats()["x509_ca"] for context in (plain, more)]
    assert counts[1] == counts[0] + 1
    assert more.verify_mode is ssl.CERT_REQUIRED
    assert more.check_hostname


async def test_what_one_workspace_trusts_is_not_trusted_by_others(
    authority: trustme.CA, authority_file: Path
) -> None:
    async with https_provider(authority) as provider, Connections(environ={}) as connections:
        await refusal(provider, connections)
        trusting = connections.trusting(authority_file)
        assert await hello(provider, trusting) == "Hello."
        assert connections.trusting(authority_file) is trusting
        assert connections.trusting(None) is connections
        provider.exchanges.clear()
        with pytest.raises(ModelError, match="not trusted here"):
            await hello(provider, connections)
        assert connections.open_connections == (0, 1)
    assert trusting.open_connections == (0, 0)
    with pytest.raises(trio.ClosedResourceError):
        trusting.client(is_local=False)


async def test_an_expired_certificate_is_named_as_such(
    authority: trustme.CA, authority_file: Path
) -> None:
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    async with (
        https_provider(authority, until=past) as provider,
        Connections(authority_file, {}) as connections,
    ):
        error = await refusal(provider, connections)
    assert "127.0.0.1 cannot be trusted: its certificate has expired" in error.message


@pytest.mark.parametrize("name", ["other.test", "127.0.0.2"])
async def test_a_certificate_for_somebody_else_is_named_as_such(
    name: str, authority: trustme.CA, authority_file: Path
) -> None:
    async with (
        https_provider(authority, name) as provider,
        Connections(authority_file, {}) as connections,
    ):
        error = await refusal(provider, connections)
    assert "its certificate is for another address" in error.message


@pytest.mark.parametrize(
    ("variable", "content", "words"),
    [
        ("SSL_CERT_FILE", None, "cannot be read: No such file or directory."),
        ("SSL_CERT_FILE", "no certificate", "holds no certificates in PEM format."),
        ("SSL_CERT_FILE", "", "holds no certificates in PEM format."),
        (None, None, "cannot be read: No such file or directory."),
    ],
)
async def test_a_file_that_cannot_be_added_is_named(
    variable: str | None, content: str | None, words: str, authority: trustme.CA, tmp_path: Path
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    environ = {variable: str(path)} if variable else {}
    ca_file = None if variable else path
    async with https_provider(authority) as provider, Connections(ca_file, environ) as connections:
        error = await refusal(provider, connections)
    assert error.message == f"{path} ({variable or 'options.ca_file'}) {words}"


async def test_a_file_that_is_mended_is_read_without_a_restart(
    authority: trustme.CA, tmp_path: Path
) -> None:
    path = tmp_path / "ca.pem"
    async with https_provider(authority) as provider, Connections(path, {}) as connections:
        await refusal(provider, connections)
        authority.cert_pem.write_to_path(str(path))
        assert await hello(provider, connections) == "Hello."


async def test_who_does_not_speak_tls_is_named_as_such() -> None:
    async def plain(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with trio.open_nursery() as nursery, Connections(environ={}) as connections:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, plain, listeners)
        url = f"https://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        with pytest.raises(ModelError, match="it does not speak TLS there") as caught:
            await model_at(url, connections).stream(request(), lambda _: None)
        assert caught.value.code == "provider_tls"
        nursery.cancel_scope.cancel()


async def test_an_answer_may_end_with_its_connection(
    authority: trustme.CA, authority_file: Path
) -> None:
    """Many servers close TLS without a word of farewell."""
    plain = b'data: {"choices":[{"delta":{"content":"Hello."},"finish_reason":"stop"}]}\n\n'
    unframed = head(200, content_type="text/event-stream", connection="close") + plain
    async with (
        https_provider(authority, answer=sending(unframed, then_close=True)) as provider,
        Connections(authority_file, {}) as connections,
    ):
        assert await hello(provider, connections) == "Hello."


async def test_an_answer_cut_inside_tls_is_cut(authority: trustme.CA, authority_file: Path) -> None:
    cut = sending(STREAM + say("Hel"), then_close=True)
    async with (
        https_provider(authority, answer=in_turn(cut, HELLO_ANSWER)) as provider,
        Connections(authority_file, {}) as connections,
        trio.open_nursery() as nursery,
    ):
        resets: list[StreamReset] = []

        def emit(event: ModelEvent) -> None:
            if isinstance(event, StreamReset):
                resets.append(event)
                nursery.cancel_scope.cancel()

        await model_at(provider.url, connections).stream(request(), emit)
    assert "broke off in the middle of its answer" in resets[0].cause
