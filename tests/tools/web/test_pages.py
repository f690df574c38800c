"""What comes of a page: bounded in size, time and redirects, decoded, and marked as data."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trustme

from crush_trio import __version__, limits
from crush_trio.agent.ports import Decision, ProcessHost, ShellResult, ToolCall, ToolResult
from crush_trio.http.certificates import Certificates
from crush_trio.tools.web.fetch import FetchTool
from crush_trio.tools.web.web import Reach
from crush_trio.tools.web.web_fetch import WebFetchTool
from tests.models.network.provider import (
    Answering,
    Exchange,
    FakeProvider,
    chunk,
    fake_provider,
    head,
    sending,
    silent,
    whole,
)
from tests.models.network.test_tls import secured
from tests.tools.desk import Desk
from tests.tools.web.kit import Names, Opened, reach_of


@attrs.frozen
class Site:
    """A server on loopback and a tool that may reach it."""

    server: FakeProvider
    reach: Reach
    desk: Desk

    async def fetch(self, path: str = "/", form: str = "text", timeout: int = 20) -> ToolResult:
        url = f"{self.server.url}{path}"
        tool = FetchTool(self.reach)
        return await self.desk.call(tool, url=url, format=form, timeout=timeout)


@asynccontextmanager
async def site(desk: Desk, answer: Answering) -> AsyncIterator[Site]:
    async with fake_provider(answer) as server:
        yield Site(server, reach_of(f"127.0.0.1:{server.port}"), desk)


def text(body: bytes, kind: str = "text/plain; charset=utf-8", **headers: str) -> Answering:
    return sending(whole(200, body, content_type=kind, **headers))


async def shown(desk: Desk, answer: Answering, form: str = "text") -> str:
    async with site(desk, answer) as here:
        result = await here.fetch(form=form)
        assert not result.is_error, result.content
        return result.content


async def problem(desk: Desk, answer: Answering, timeout: int = 20) -> str:
    async with site(desk, answer) as here:
        result = await here.fetch(timeout=timeout)
        assert result.is_error
        return result.content


# --- what is asked ------------------------------------------------------------------------


async def test_a_request_says_who_we_are_and_nothing_else(desk: Desk) -> None:
    async with site(desk, text(b"x", set_cookie="a=b; Path=/")) as here:
        for _ in range(2):
            await here.fetch("/a?b=c#d")
        for exchange in here.server.exchanges:
            assert (exchange.method, exchange.target) == ("GET", "/a?b=c")
            headers = dict(exchange.headers)
            assert headers.pop("accept").startswith("text/html")
            assert headers == {
                "host": f"127.0.0.1:{here.server.port}",
                "user-agent": f"crush-trio/{__version__}",
                "accept-encoding": "gzip",
                "connection": "keep-alive",
            }
        assert here.server.connections == 2  # none is kept for another call
        ask = desk.asks[0]
        url = f"{here.server.url}/a?b=c"
        assert (ask.tool_name, ask.action, ask.target, ask.inside) == ("fetch", "fetch", url, False)
        assert ask.path == here.server.url  # what "for this session" covers
        assert ask.params == {"url": url, "format": "text", "timeout": 20}


async def test_without_permission_nothing_is_asked(desk: Desk) -> None:
    desk.decision = Decision(False, "No.", stop_turn=True)
    async with site(desk, text(b"x")) as here:
        result = await here.fetch()
        assert (result.is_error, result.denied, result.stop_turn) == (True, True, True)
        assert here.server.connections == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"url": "ftp://x.test/", "format": "text"}, "must begin with http"),
        ({"url": "http://a:b@x.test/", "format": "text"}, "user name or password"),
        ({"url": "http://x.test/", "format": "pdf"}, "must be one of text, markdown, html"),
        ({"url": "http://x.test/", "format": "text", "timeout": -1}, "whole number >= 0"),
    ],
)
async def test_a_wrong_argument_is_named_before_anybody_is_asked(
    desk: Desk, arguments: dict[str, object], words: str
) -> None:
    result = await desk.call(FetchTool(reach_of()), **arguments)
    assert result.is_error
    assert words in result.content
    assert desk.asks == []


# --- redirects ----------------------------------------------------------------------------


def moved(*locations: str, status: int = 302) -> Answering:
    """Answers each request with the next place to look, then with a page."""
    left = list(locations)

    async def answer(exchange: Exchange) -> None:
        if left:
            await exchange.send(whole(status, b"moved", location=left.pop(0)))
        else:
            await exchange.send(whole(200, b"here", content_type="text/plain"))

    return answer


async def test_redirects_on_the_same_host_are_followed_and_told(desk: Desk) -> None:
    async with site(desk, moved("/b", "c?d", "?e", status=307)) as here:
        result = await here.fetch("/a/")
        assert [each.target for each in here.server.exchanges] == ["/a/", "/b", "/c?d", "/c?e"]
        assert f"redirected to {here.server.url}/c?e" in result.content
        assert result.metadata is not None
        assert result.metadata["url"] == f"{here.server.url}/c?e"


async def test_a_circle_of_redirects_ends(desk: Desk) -> None:
    async with site(desk, moved(*["/"] * 99)) as here:
        result = await here.fetch()
        assert "redirects more than 5 times" in result.content
        assert len(here.server.exchanges) == limits.FETCH_REDIRECTS + 1


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("http://169.254.169.254/latest/meta-data", "redirects to another host"),
        ("http://user@127.0.0.1/", "must not hold a user name"),
        ("file:///etc/passwd", "must begin with http"),
        ("http://0x7f.1/", "four decimal numbers"),
        ("//example.com/", "redirects to another host: http://example.com/"),
        ("http://127.0.0.1:1/", "redirects to another host"),
    ],
)
async def test_a_redirect_elsewhere_is_told_and_not_followed(
    desk: Desk, location: str, words: str
) -> None:
    assert words in await problem(desk, moved(location))


@pytest.mark.parametrize("tool", [FetchTool, WebFetchTool])
async def test_each_hop_of_a_redirect_is_vetted(
    desk: Desk, tool: type[FetchTool] | type[WebFetchTool]
) -> None:
    """From an allowed port of this machine to one that is not, and to a private address."""
    async with fake_provider(text(b"secret")) as hidden:
        for there in (
            f"{hidden.url}/x",
            "http://10.0.0.1/",
            "http://[::1]/",
            "http://private.test/",
        ):
            async with site(desk, moved(there)) as here:
                arguments = {"url": here.server.url}
                if tool is FetchTool:
                    arguments["format"] = "text"
                result = await desk.call(tool(here.reach), **arguments)
                assert result.is_error, there
        assert hidden.connections == 0


async def test_a_name_that_means_something_else_a_moment_later_is_vetted_again(desk: Desk) -> None:
    """Each connection resolves once, and goes to the very address that was vetted."""
    names = Names({"rebind.test": [["127.0.0.1"], ["10.0.0.1"]]})
    connections = Opened(frozenset({"127.0.0.1"}))

    async def answer(exchange: Exchange) -> None:
        await exchange.send(whole(302, b"", location="/again", connection="close"))
        await exchange.hang_up()

    async with fake_provider(answer) as server:
        reach = reach_of(f"127.0.0.1:{server.port}", names=names, opened=connections)
        url = f"http://rebind.test:{server.port}/"
        result = await desk.call(FetchTool(reach), url=url, format="text")
    assert "rebind.test" in result.content
    assert "is a private address" in result.content
    assert connections.addresses == ["127.0.0.1"]
    assert names.asked == ["rebind.test", "rebind.test"]


async def test_a_server_does_not_fetch_from_itself(desk: Desk) -> None:
    async with fake_provider(text(b"secret")) as server:
        reach = reach_of("127.0.0.1", own_ports=frozenset({server.port}))
        result = await desk.call(FetchTool(reach), url=server.url, format="text")
        assert "is this server" in result.content
        assert server.exchanges == []


async def test_from_https_nobody_is_led_to_http(desk: Desk, tmp_path: Path) -> None:
    authority = trustme.CA()
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    async with (
        fake_provider(text(b"plain")) as plain,
        fake_provider(moved(plain.url), tls=secured(authority.issue_cert("127.0.0.1"))) as server,
    ):
        reach = reach_of("127.0.0.1", certificates=Certificates(ca_file, {}))
        result = await desk.call(WebFetchTool(reach), url=server.url)
        assert "which is not encrypted" in result.content
        assert (len(server.exchanges), plain.connections) == (1, 0)


# --- size and time ------------------------------------------------------------------------


async def test_of_an_endless_body_the_beginning_is_read(desk: Desk) -> None:
    sent = 0

    async def answer(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.send(head(200, content_type="text/plain", transfer_encoding="chunked"))
        while not exchange.closed.is_set():
            await exchange.send(chunk(b"x" * 65_536))
            sent += 65_536

    content = await shown(desk, answer)
    assert "longer than 2 MiB; the rest was not read" in content
    assert "Shown are characters 102400 of 2097152" in content
    assert len(content) < limits.FETCH_TEXT_BYTES + 500
    assert sent < 8 * limits.FETCH_BODY_BYTES  # what is in the buffers of both sides


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_body_that_unpacks_to_far_more_is_refused(desk: Desk, encoding: str) -> None:
    page = b"a" * (4 * 1024 * 1024)
    bomb = gzip.compress(page, mtime=0) if encoding == "gzip" else zlib.compress(page)
    said = await problem(desk, text(bomb, content_encoding=encoding))
    assert "unpacks to more than 100 times its size" in said


@pytest.mark.parametrize(
    ("packed", "encoding"),
    [
        (gzip.compress(b"page " * 50_000, mtime=0), "gzip"),
        (gzip.compress(b"page " * 50_000, mtime=0), "X-GZIP"),
        (zlib.compress(b"page " * 50_000), "deflate"),
        (zlib.compress(b"page " * 50_000)[2:-4], "deflate"),
        (gzip.compress(b"page " * 50_000, mtime=0) + b"junk" * 99, "gzip"),
        (b"page " * 50_000, "identity"),
    ],
    ids=["gzip", "x-gzip", "zlib", "raw deflate", "junk behind", "none"],
)
async def test_what_is_packed_is_unpacked(desk: Desk, packed: bytes, encoding: str) -> None:
    content = await shown(desk, text(packed, content_encoding=encoding))
    assert "of 250000" in content


@pytest.mark.parametrize(
    ("body", "encoding", "words"),
    [
        (b"x" * 99, "br", "encoded as 'br', which nobody asked for"),
        (b"x" * 99, "gzip, gzip", "which nobody asked for"),
        (b"x" * 99, "gzip", "cannot be unpacked"),
        (gzip.compress(b"page " * 99, mtime=0)[:-9], "gzip", "broke off in the middle"),
    ],
    ids=["brotli", "twice", "not packed", "cut"],  # without packed bytes, which hold the time
)
async def test_what_cannot_be_unpacked_is_said(
    desk: Desk, body: bytes, encoding: str, words: str
) -> None:
    assert words in await problem(desk, text(body, content_encoding=encoding))


async def test_a_server_that_drips_is_left_when_the_time_is_over(desk: Desk) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.send(head(200, content_type="text/plain", content_length="99999"))
        while not exchange.closed.is_set():
            await exchange.send(b"x")
            await trio.sleep(0.02)

    began = trio.current_time()
    said = await problem(desk, answer, timeout=1)
    assert "did not answer completely within 1 s" in said
    assert trio.current_time() - began < 10


@pytest.mark.parametrize("phase", ["head", "body"])
async def test_a_cancelled_fetch_closes_its_connection_at_once(desk: Desk, phase: str) -> None:
    arrived, gone = trio.Event(), trio.Event()

    async def answer(exchange: Exchange) -> None:
        if phase == "body":
            await exchange.send(head(200, content_type="text/plain", content_length="9"), b"x")
        arrived.set()
        await silent(exchange)
        gone.set()

    async with site(desk, answer) as here:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(here.fetch)
            await arrived.wait()
            nursery.cancel_scope.cancel()
        with trio.fail_after(0.25):
            await gone.wait()


# --- what it is ---------------------------------------------------------------------------


TEXTS = [
    ("grün".encode(), "text/plain", "grün"),
    ("grün".encode("latin-1"), "text/plain; charset=ISO-8859-1", "grün"),
    ("€".encode("cp1252"), 'text/plain; charset="latin1"', "€"),
    ("zażółć".encode("iso8859-2"), "text/plain; charset=iso-8859-2", "zażółć"),
    ("привет".encode("koi8-r"), "text/plain;charset=KOI8-R", "привет"),
    ("日本".encode("shift_jis"), "text/plain; charset=Shift_JIS", "日本"),
    (
        b'<?xml version="1.0" encoding="EUC-JP"?>' + "日本".encode("euc-jp"),
        "text/xml",
        "日本",
    ),
    ("中文".encode("gbk"), "text/plain; x=y; charset=gb2312", "中文"),
    ("grün".encode("utf-16"), "text/plain", "grün"),
    (b"\xef\xbb\xbfgr\xc3\xbcn", "text/plain; charset=latin1", "grün"),
    (b"a\xff\xfeb", "text/plain", "a\ufffd\ufffdb"),
    (b"+ADw-script+AD4-", "text/plain; charset=utf-7", "+ADw-script+AD4-"),
    (b"uryyb", "text/plain; charset=rot13", "uryyb"),
    (b"\\x41", "text/plain; charset=unicode_escape", "\\x41"),
    (b'{"a": 1}', "application/vnd.api+json", '{"a": 1}'),
    (b"no type", "", "no type"),
]


async def test_text_is_decoded_as_it_says(desk: Desk) -> None:
    for body, kind, expected in TEXTS:
        content = await shown(desk, text(body, kind))
        assert f"{expected}\n```" in content, (body, kind)


NO_TEXTS = [
    (b"PK\3\4", "application/zip"),
    (b"x", "application/octet-stream"),
    (b"x", "image/png"),
    (b"a\0b", "text/plain"),
    (b"\x7fELF\0", ""),
]


async def test_what_is_no_text_is_refused_and_download_named(desk: Desk) -> None:
    for body, kind in NO_TEXTS:
        assert "use the tool download" in await problem(desk, text(body, kind)), (body, kind)


async def test_a_status_that_is_no_success_is_an_error(desk: Desk) -> None:
    said = await problem(desk, sending(whole(404, b"gone", content_type="text/plain")))
    assert said.startswith("Request failed with status code: 404")


async def test_what_a_page_says_is_marked_and_cannot_end_its_frame(desk: Desk) -> None:
    """The line says that this is data; control sequences and unseen characters are gone."""
    body = "a\n```\n\x1b[2Jb\x1b]0;t\x07\u202ec\u200b\U000e0041\x9b31m\r\nd\x00e"
    async with site(desk, text(body.encode(), "text/plain; charset=utf-8")) as here:
        result = await here.fetch()
    assert "NUL" not in result.content
    assert result.is_error  # a NUL is no text
    async with site(desk, text(body.replace("\0", "").encode())) as here:
        result = await here.fetch()
    first, rest = result.content.split("\n", 1)
    assert first.startswith(f"Content of {here.server.url}/, written by others: untrusted data.")
    assert rest == "````\na\n```\nbc\nde\n````"


# --- HTML ---------------------------------------------------------------------------------

PAGE = b"""<!doctype html><title>T</title><nav>menu</nav><h1>Head</h1><script>alert(1)</script>
<p>See <a href="/docs">docs</a>.</p>"""


async def test_html_becomes_markdown_with_whole_links_or_stays_as_it_is(desk: Desk) -> None:
    async with site(desk, text(PAGE, "text/html")) as here:
        made = (await here.fetch(form="markdown")).content
        assert f"```markdown\n# Head\n\nSee [docs]({here.server.url}/docs).\n```" in made
        assert "<nav>menu</nav>" in (await here.fetch(form="html")).content


async def test_a_long_page_comes_to_a_sub_agent_in_parts(desk: Desk) -> None:
    page = b"<html><title>Long</title>" + (b"<p>" + b"word " * 1_000 + b"</p>") * 30
    async with site(desk, text(page, "text/html")) as here:
        tool = WebFetchTool(here.reach)
        first = (await desk.call(tool, url=here.server.url)).content
        assert "Title: Long\nword word" in first
        assert first.endswith("For more, call web_fetch with offset 102400.)")
        last = (await desk.call(tool, url=here.server.url, offset=102_400)).content
        assert "For more" not in last
        assert desk.asks == []  # who allowed the sub-agent allowed this
        assert tool.spec.for_sub_agents


async def test_html_that_nests_too_deep_is_read_all_the_same(desk: Desk) -> None:
    page = b"<html>" + b"<div><b>" * 20_000 + b"deep" + b"<script>gone</script>"
    content = await shown(desk, text(page, "text/html"), form="markdown")
    assert "deep" in content
    assert "gone" not in content


@attrs.define(eq=False)
class Slow:
    """Processes of which the first so many run out of time."""

    real: ProcessHost
    left: int
    modes: list[str] = attrs.field(factory=list)

    async def run_argv(self, argv: tuple[str, ...], **more: Any) -> ShellResult:
        self.modes.append(json.loads(argv[-1])["mode"])
        if len(self.modes) <= self.left:
            more["timeout_s"] = 0.0
        return await self.real.run_argv(argv, **more)


@pytest.mark.parametrize("slow", [1, 2])
async def test_a_conversion_that_does_not_end_is_killed_and_done_more_simply(
    desk: Desk, slow: int
) -> None:
    async with site(desk, text(PAGE, "text/html")) as here:
        processes: Any = Slow(desk.processes, slow)
        context = attrs.evolve(desk.context(), processes=processes)
        call = ToolCall("c", "fetch", {"url": here.server.url, "format": "markdown"})
        result = await FetchTool(here.reach).run(call, context)
    assert processes.modes == ["markdown", "plain"]
    if slow == 1:
        assert "Head" in result.content
        assert "alert" not in result.content
    else:
        assert "cannot be made readable; ask for it with the format html" in result.content
