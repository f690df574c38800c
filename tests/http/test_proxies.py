"""Which proxy a connection goes through: pure, by variables alone."""

from __future__ import annotations

import pytest

from crush_trio.http.failures import HttpFailure, HttpKind
from crush_trio.http.proxies import is_loopback, proxy_for

P = "http://proxy.test:3128"


def used(environ: dict[str, str], *, scheme: str = "https", host: str = "api.x.test") -> str:
    """Host and port of the proxy for a connection, or nothing."""
    proxy = proxy_for(scheme, host, 443 if scheme == "https" else 80, environ)
    return "" if proxy is None else f"{proxy.host}:{proxy.port}"


@pytest.mark.parametrize(
    ("environ", "scheme", "expected"),
    [
        ({}, "https", ""),
        ({"HTTPS_PROXY": P}, "https", "proxy.test:3128"),
        ({"https_proxy": P}, "https", "proxy.test:3128"),
        ({"HTTPS_PROXY": P}, "http", ""),
        ({"HTTP_PROXY": P}, "http", "proxy.test:3128"),
        ({"HTTP_PROXY": P}, "https", ""),
        ({"ALL_PROXY": P}, "http", "proxy.test:3128"),
        ({"all_proxy": P}, "https", "proxy.test:3128"),
        ({"ALL_PROXY": P, "HTTPS_PROXY": "http://other.test:1"}, "https", "other.test:1"),
        ({"https_proxy": "http://low.test:1", "HTTPS_PROXY": P}, "https", "low.test:1"),
        ({"HTTPS_PROXY": "proxy.test:3128"}, "https", "proxy.test:3128"),
        ({"HTTPS_PROXY": "http://proxy.test"}, "https", "proxy.test:80"),
        ({"HTTPS_PROXY": "https://proxy.test"}, "https", "proxy.test:443"),
        ({"HTTPS_PROXY": "http://[::1]:3128"}, "https", "::1:3128"),
        ({"HTTPS_PROXY": "  "}, "https", ""),
    ],
)
def test_the_variables_say_which_proxy(environ: dict[str, str], scheme: str, expected: str) -> None:
    assert used(environ, scheme=scheme) == expected


@pytest.mark.parametrize(
    ("no_proxy", "host", "direct"),
    [
        ("*", "api.x.test", True),
        ("api.x.test", "api.x.test", True),
        ("API.X.TEST", "api.x.test", True),
        ("x.test", "api.x.test", True),
        (".x.test", "api.x.test", True),
        (".x.test", "x.test", True),
        ("*.x.test", "api.x.test", True),
        ("x.test", "max.test", False),
        ("x.test", "x.test.evil.test", False),
        ("other.test, x.test", "api.x.test", True),
        ("other.test x.test", "api.x.test", True),
        ("api.x.test:443", "api.x.test", True),
        ("api.x.test:8443", "api.x.test", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3:443", "10.1.2.3", True),
        ("10.1.2.3:80", "10.1.2.3", False),
        ("fd00::/8", "fd00::7", True),
        ("[fd00::7]:443", "fd00::7", True),
        ("[fd00::7]:80", "fd00::7", False),
        ("api.x.test.", "api.x.test", True),
        ("api.x.test", "api.x.test.", True),
        ("", "api.x.test", False),
        (",,", "api.x.test", False),
        ("10.0.0.0/99", "10.1.2.3", False),
        ("x.test", "10.1.2.3", False),
    ],
)
@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
def test_no_proxy_names_what_is_reached_directly(
    name: str, no_proxy: str, host: str, direct: bool
) -> None:
    assert (used({"ALL_PROXY": P, name: no_proxy}, host=host) == "") is direct


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST", "a.localhost", "127.0.0.1", "127.9.9.9", "::1", "[::1]"]
)
def test_this_machine_is_never_reached_through_a_proxy(host: str) -> None:
    assert is_loopback(host)
    assert used({"ALL_PROXY": P, "HTTP_PROXY": P}, host=host, scheme="http") == ""


@pytest.mark.parametrize("host", ["localhost.evil.test", "10.0.0.1", "notlocalhost", "::2"])
def test_what_only_looks_like_this_machine_is_not(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize("value", ["socks5://p.test:1080", "SOCKS5H://p.test", "socks4://p"])
def test_a_socks_proxy_is_refused_with_what_to_do_instead(value: str) -> None:
    with pytest.raises(HttpFailure, match="ALL_PROXY names a SOCKS proxy") as caught:
        used({"ALL_PROXY": value})
    assert caught.value.kind is HttpKind.PROXY


@pytest.mark.parametrize("value", ["ftp://p.test", "http://", "http://p:port", "http://[p"])
def test_what_is_no_proxy_is_refused_and_its_value_not_shown(value: str) -> None:
    with pytest.raises(HttpFailure, match=r"^HTTPS_PROXY is not the address of a proxy") as caught:
        used({"HTTPS_PROXY": value})
    assert caught.value.kind is HttpKind.PROXY


def test_name_and_password_of_a_proxy_are_sent_and_never_shown() -> None:
    proxy = proxy_for("https", "api.x.test", 443, {"HTTPS_PROXY": "http://me:p%40ss@p.test:1"})
    assert proxy is not None
    assert proxy.authorization == b"Basic bWU6cEBzcw=="
    assert proxy.name == "the proxy http://p.test:1 (HTTPS_PROXY)"
    assert "bWU6" not in repr(proxy)
