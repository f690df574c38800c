"""Whatever bytes a server sends, what is made of them is text within bounds, or one sentence."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import zlib
from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crush_trio.limits import FETCH_DEPTH, FETCH_RATIO_FREE_BYTES, HTTP_RECEIVE_BYTES
from crush_trio.tools.web.charsets import decoded
from crush_trio.tools.web.framing import framed
from crush_trio.tools.web.program import converted
from crush_trio.tools.web.text import cleaned, cut
from crush_trio.tools.web.unpack import Unpacker, UnpackError
from crush_trio.tools.web.urls import read_url

TAGS = [
    *("<p>", "</p>", "<![", "<![CDATA[", "]]>", "<!--", "-->", "<!doctype", "<?php", "<", "</"),
    *("<!", "<table>", "<td colspan='x'>", "<td colspan='99999999999'>", "<th>", "<ol start='x'>"),
    *("<li>", "<a href='//[x'>", "<a href='javascript:x'>", "<a>", "<img src=x alt='", "<title>"),
    *("&#xD800;", "&#99999999999;", "&bogus;", "<h9>", "<pre>", "<code>", "<script>", "</script>"),
    *("<style>", "<svg>", "<b><i></b></i>", "<div style='display:none'>", "<p hidden>", "<br/>"),
    *("\x00", "\x1b[", "\u202e", "é", "<dl><dt><dd>", "<blockquote>", "<sub>", "<hr>"),
]
PAGES = st.lists(st.sampled_from(TAGS) | st.text(max_size=5), max_size=12).map("".join)


PAGE = """<!doctype html><html><head><title>The title</title><style>p{}</style></head><body>
<nav>menu</nav><h1>Head</h1><script>alert(1)</script><p>See <a href="/docs?x=1#y">docs</a>,
<a href="javascript:alert(1)">this</a> &amp; <b>that</b>.<img src="data:image/png;base64,AAAA"></p>
<p style="color:red; DISPLAY : none">hidden1</p><p hidden>hidden2</p><!-- hidden3 -->
<span aria-hidden="true">hidden4</span><span style="font-size:0">hidden5</span>
<form action="/x"><ul><li>one</li><li>two</li></ul><input value="input"></form>
<table><tr><th>k</th></tr><tr><td>v</td></tr></table></body></html>
"""


@pytest.mark.parametrize("mode", ["markdown", "text"])
def test_noise_and_what_nobody_would_see_are_left_out_of_a_page(mode: str) -> None:
    title, text = converted(PAGE, mode, "http://a.test/b/c")
    assert title == "The title"
    for gone in ("hidden", "alert", "menu", "p{}", "data:image", "&amp;", "input", "The title"):
        assert gone not in text, gone
    if mode == "markdown":
        assert text.startswith("# Head\n\nSee [docs](http://a.test/docs?x=1#y),\nthis & **that**.")
        assert "- one\n- two" in text
        assert "| k |" in text
    else:
        assert text.startswith("Head\nSee docs,\nthis & that.")


def test_a_page_that_nests_too_deep_is_read_without_a_tree() -> None:
    page = "<div><b></i>" * (FETCH_DEPTH // 2 + 1) + "deep<script>gone</script><br>er"
    assert converted(page, "markdown", "http://a.test/") == ("", "deep\ner")


@given(PAGES, st.sampled_from(["markdown", "text", "plain"]))
@example("<![x", "plain")
@example("<![x", "markdown")
@settings(max_examples=60)
def test_every_page_can_be_made_readable(page: str, mode: str) -> None:
    title, text = converted(page, mode, "http://a.test/b")
    assert "\x00" not in cleaned(title + text)


@given(st.binary(max_size=3_000), st.lists(st.integers(0, 3_000), max_size=4), st.booleans())
def test_what_was_packed_comes_out_as_it_was_in_whatever_pieces_it_comes(
    body: bytes, cuts: Sequence[int], by_gzip: bool
) -> None:
    packed = gzip.compress(body) if by_gzip else zlib.compress(body)
    unpacker, ends = Unpacker("gzip" if by_gzip else "deflate"), sorted({0, *cuts, len(packed)})
    out = b"".join(
        piece
        for begin, end in itertools.pairwise(ends)
        for piece in unpacker.feed(packed[begin : min(end, len(packed))])
        if begin < len(packed)
    )
    unpacker.end()
    assert out == body


@given(st.binary(max_size=300), st.sampled_from(["gzip", "deflate"]))
def test_what_is_not_packed_is_refused_in_a_sentence(body: bytes, encoding: str) -> None:
    unpacker = Unpacker(encoding)
    with contextlib.suppress(UnpackError):
        assert len(b"".join(unpacker.feed(body))) <= FETCH_RATIO_FREE_BYTES
        unpacker.end()


def test_of_a_bomb_little_more_is_unpacked_than_it_may_be() -> None:
    pieces: list[bytes] = []
    with pytest.raises(UnpackError, match="unpacks to more than 100 times"):
        pieces.extend(Unpacker("gzip").feed(gzip.compress(b"\0" * 5_000_000)))
    assert max(map(len, pieces)) <= HTTP_RECEIVE_BYTES
    assert sum(map(len, pieces)) <= FETCH_RATIO_FREE_BYTES


@given(st.binary(max_size=60), st.text(max_size=12))
def test_every_body_is_text_in_the_end(body: bytes, charset: str) -> None:
    text = cleaned(decoded(body, charset))
    assert cleaned(text) == text
    assert len(cut(text, 20).encode()) <= 20
    assert text.startswith(cut(text, 20))


@given(st.text(alphabet="`a\n", max_size=40))
def test_no_text_closes_the_fence_around_it(text: str) -> None:
    lines = framed(text, read_url("http://a.test/")).split("\n")
    fence = lines[1]
    assert set(fence) == {"`"}
    assert [line for line in lines if line.startswith(fence)] == [fence, fence]
    assert lines[-1] == fence
