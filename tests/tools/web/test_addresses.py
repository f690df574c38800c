"""No spelling of an address that is not public is ever connected to (T42, T43)."""

from __future__ import annotations

import ipaddress
import re
import socket

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crush_trio.http.dialing import Origin
from crush_trio.http.failures import HttpFailure
from crush_trio.http.hosts import read_host, read_target
from crush_trio.tools.arguments import ToolProblem
from crush_trio.tools.web.addresses import AddressPolicy, not_public
from crush_trio.tools.web.exchange import opened
from crush_trio.tools.web.urls import read_url
from tests.tools.web.kit import Names, Opened, reach_of

NAMES = {
    "loopback.test": [["127.0.0.1"]],
    "loopback6.test": [["::1"]],
    "private.test": [["10.1.2.3"]],
    "ula.test": [["fd12:3456::1"]],
    "linklocal.test": [["169.254.169.254"]],
    "zone.test": [["fe80::1%eth0"]],
    "cgnat.test": [["100.100.100.200"]],
    "mapped.test": [["::ffff:10.0.0.1"]],
    "nat64.test": [["64:ff9b::a00:1"]],
    "mixed.test": [["93.184.216.34", "127.0.0.1"]],
    "mixed6.test": [["93.184.216.34", "::1"]],
    "broken.test": [["not-an-address"]],
    "localhost": [["127.0.0.1"]],
    "a.localhost": [["127.0.0.1"]],
    "metadata.google.internal": [["169.254.169.254"]],
    "router.lan": [["192.168.1.1"]],
    "xn--fa-hia.example": [["93.184.216.34"]],
    "public.test": [["93.184.216.34", "2606:2800:220:1::1"]],
    "xn--bcher-kva.example": [["93.184.216.34"]],
}
ADDRESSES = """
0.0.0.0 0.1.2.3 0.255.255.255 10.0.0.0 10.255.255.255 100.64.0.0 100.64.0.1 100.100.100.200
100.127.255.255 127.0.0.0 127.0.0.1 127.0.1.1 127.1.2.3 127.255.255.255 168.63.129.16 169.254.0.0
169.254.169.254 169.254.170.2 169.254.255.255 172.16.0.1 172.20.1.1 172.31.255.255 192.0.0.1
192.0.0.192 192.0.2.1 192.88.99.1 192.168.0.1 192.168.255.255 198.18.0.1 198.19.255.255
198.51.100.7 203.0.113.9 224.0.0.1 239.255.255.250 240.0.0.1 255.255.255.254 255.255.255.255
""".split()  # noqa: SIM905  # a table reads better in lines
ADDRESSES6 = """
:: ::1 0:0:0:0:0:0:0:1 ::127.0.0.1 ::7f00:1 ::ffff:127.0.0.1 ::ffff:7f00:1 ::FFFF:10.0.0.1
::ffff:169.254.169.254 ::ffff:0:127.0.0.1 0:0:0:0:0:ffff:192.168.0.1 64:ff9b::7f00:1
64:ff9b::169.254.169.254 64:ff9b::10.0.0.1 64:ff9b:1::1 100::1 2001::1 2001:0:53aa:64c::1
2001:2::1 2001:10::1 2001:db8::1 2002:7f00:1:: 2002:a9fe:a9fe::1 2002:a00:1::1 3fff::1 4000::1
5f00::1 fc00::1 fd00::1 fd00:ec2::254 fe80::1 fe80::a9fe:a9fe febf::1 fec0::1 feff::1 ff02::1
ff0e::1
""".split()  # noqa: SIM905  # as above
SPELLINGS = re.split(
    r"[ \n]+",  # only these: other white space is part of a spelling
    """2130706433 017700000001 0x7f000001 0x7F.0.0.1 0x7f.1 127.1 127.0.1 0177.0.0.1 0177.1
127.0.0.01 127.0.0.1. 127.00.0.1 00127.0.0.1 0 0x0 00 1 3232235521 0xC0A80001 0300.0250.0.1
2852039166 0xa9fea9fe 0xa9.0xfe.0xa9.0xfe 0251.0376.0251.0376 169.16689662 10.1 10.0.1 192.168.1
4294967295 4294967296 0x100000000 127.0.0.1.. 127.0.0.256 1.2.3.4.5 127.0.0.1.0x1
256.256.256.256 127.0.0.0x1 １２７.０.０.１ 127。0。0。1 127．0．0．1 ①②⑦.0.0.1 ⑯⑨.254.169.254
ｌocalhost ⓛⓞⓒⓐⓛⓗⓞⓢⓣ LOCALHOST localhost. localhost.. loc%61lhost 127.0.0.1%2f 127.0.0.1%00
%31%32%37.0.0.1 user@127.0.0.1 a:b@127.0.0.1 example.com@127.0.0.1 127.0.0.1@example.com
[::1%25eth0] [fe80::1%25eth0] [fe80::1%eth0] [::1 [127.0.0.1] [] [::1]x [::1]: [v1.fe80::a]
127.0.0.1: 127.0.0.1:0 127.0.0.1:65536 127.0.0.1:8o 127.0.0.1:+80 127.0.0.1:８０ ::1
127.0.0\u00ad.1 lo\u00adcalhost under_score.test
-a.test a-.test a..test .test . *.test a!b.test 127.0.0.1\\@example.com example.com\\.test
xn--a.test\x00 localhost\x00.example.com 127.0.0.1\tx exa\rmple.com example.com\x7f ﷺ.test
a\u200bb.test:0 a\u2028b.test 127.0.0.1\u3000x""",
)
REFUSED = [
    *(f"http://{each}/" for each in ADDRESSES),
    *(f"http://[{each}]/" for each in ADDRESSES6),
    *(f"http://{each}/" for each in (*SPELLINGS, "exa\nmple.com", "127.0.0.1 x")),
    *(f"https://{name}/" for name in NAMES if not name.startswith(("public", "xn--"))),
    *("file:///etc/passwd", "ftp://public.test/", "gopher://public.test/", "data:text/html,x"),
    *("//public.test/", "public.test", "http:public.test", "http:/public.test", "http://", ""),
    *("javascript:alert(1)", "http:\\\\public.test", "ws://public.test/", "unix:///run/x.sock"),
    *("http://public.test:99999/", "http://public.test/\ud800", f"http://public.test/{'a' * 8192}"),
]
PUBLIC = {
    "http://93.184.216.34/": ["93.184.216.34"],
    "http://9.255.255.255/": ["9.255.255.255"],
    "http://11.0.0.0:8080/": ["11.0.0.0"],
    "http://100.63.255.255/": ["100.63.255.255"],
    "http://172.32.0.1/": ["172.32.0.1"],
    "http://[2606:2800:220:1::1]/": ["2606:2800:220:1::1"],
    "http://[2606:2800:0220:0001:0:0:0:1]:443/": ["2606:2800:220:1::1"],
    "http://[::ffff:8.8.8.8]/": ["::ffff:8.8.8.8"],
    "http://[64:ff9b::8.8.8.8]/": ["64:ff9b::808:808"],
    "HTTP://Public.TEST./x?y#z": ["93.184.216.34", "2606:2800:220:1::1"],
    "http://bücher.example/ä": ["93.184.216.34"],
    "http://xn--fa-hia.example/": ["93.184.216.34"],
    "  http://public.test\n": ["93.184.216.34", "2606:2800:220:1::1"],
}


async def tried(url: str, *allowed: str, **environ: str) -> tuple[list[str], str]:
    """The addresses a fetch of ``url`` connects to, and what it says in the end."""
    connections = Opened()
    reach = reach_of(*allowed, environ=environ, names=Names(NAMES), opened=connections)
    try:
        async with opened(read_url(url), reach, within_s=5, accept="*/*"):
            pytest.fail("nobody is there to answer")
    except (ValueError, ToolProblem) as problem:
        return connections.addresses, str(problem)


async def test_no_spelling_of_what_is_not_public_is_connected_to() -> None:
    assert len(set(REFUSED)) >= 200
    for url in REFUSED:
        addresses, said = await tried(url)
        assert addresses == [], (url, addresses)
        assert said.isprintable(), (url, said)


async def test_what_is_public_is_connected_to_at_the_addresses_that_were_vetted() -> None:
    for url, expected in PUBLIC.items():
        addresses, said = await tried(url)
        assert addresses == expected, (url, said)
        assert "No connection to" in said


@pytest.mark.parametrize(
    ("entry", "reached", "refused"),
    [
        ("localhost", "http://localhost:1234/", "http://127.0.0.1/"),
        ("localhost:3000", "http://localhost:3000/", "http://localhost:3001/"),
        ("127.0.0.1", "http://127.0.0.1/", "http://127.0.0.2/"),
        ("127.0.0.1:81", "http://loopback.test:81/", "http://loopback.test:82/"),
        ("10.0.0.0/8", "http://private.test/", "http://[::1]/"),
        ("10.0.0.0/8", "http://mapped.test/", "http://192.168.0.1/"),
        ("fd00::/8", "http://ula.test/", "http://[fe80::1]/"),
        ("[::1]:8080", "http://[::1]:8080/", "http://[::1]/"),
        ("private.test", "http://PRIVATE.test./", "http://10.1.2.3/"),
        ("127.0.0.0/8", "http://127.0.0.9/", "http://mixed6.test/"),
    ],
)
async def test_the_configuration_allows_what_it_names_and_no_more(
    entry: str, reached: str, refused: str
) -> None:
    assert (await tried(reached, entry))[0] != []
    assert (await tried(refused, entry))[0] == []


@pytest.mark.parametrize(
    "entry", ["", "*", "10.0.0.1/8", "http://a.test", "a b", "0x7f.1", "a:b:c", "fd00::1", "[::1"]
)
def test_an_entry_that_means_nothing_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match=r"^expected "):
        read_target(entry)


async def test_behind_a_proxy_private_names_and_addresses_are_refused_all_the_same() -> None:
    """What a name means behind it only the proxy knows; what is known here counts."""
    proxy = {"http_proxy": "http://93.184.216.1:3128"}
    for url in (
        "http://10.0.0.1/",
        "http://intranet/",
        "http://router.lan/",
        "http://private.test",
    ):
        addresses, said = await tried(url, **proxy)
        assert (addresses, "is not fetched" in said) == ([], True), url
    # What needs no proxy is vetted like everything else.
    assert (await tried("http://localhost/", **proxy))[0] == []
    assert (await tried("http://private.test/", **proxy, no_proxy="*"))[0] == []


def test_this_machine_is_refused_by_any_of_its_addresses_and_this_server_always() -> None:
    origin = Origin("http", "public.test", 80)
    mine = "93.184.216.34"
    AddressPolicy().check_connected(origin, mine, "93.184.216.35")
    with pytest.raises(HttpFailure, match="it is this machine"):
        AddressPolicy().check_connected(origin, mine, mine)
    with pytest.raises(HttpFailure, match="it is this machine"):
        AddressPolicy().check_connected(origin, f"::ffff:{mine}", mine)
    allowing = AddressPolicy((read_target(mine),), frozenset({8080}))
    allowing.check_connected(origin, mine, mine)
    with pytest.raises(HttpFailure, match="is this server"):
        allowing.check_connected(Origin("http", "public.test", 8080), mine, mine)


@given(st.ip_addresses())
def test_what_counts_as_public_is_public_to_the_standard_library(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    """Ours is the stricter one: nothing passes that Python knows to be special."""
    if not_public(address) is None:
        assert address.is_global or address in ipaddress.ip_network("64:ff9b::/96")
    if isinstance(address, ipaddress.IPv4Address) and not_public(address) is not None:
        for prefix in ("::ffff:", "64:ff9b::"):
            assert not_public(ipaddress.IPv6Address(f"{prefix}{address}")) is not None
        octets = address.packed.hex()
        assert not_public(ipaddress.IPv6Address(f"2002:{octets[:4]}:{octets[4:]}::1")) is not None


HOSTS = st.one_of(
    st.text(min_size=1, max_size=20),
    st.text(alphabet="aZ0179xX.-_[]:%@/\\?#。é ", min_size=1, max_size=20),
    st.ip_addresses().map(str),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
    st.integers(0, 2**33).map(str),
    st.sampled_from(SPELLINGS),
)


@given(HOSTS, st.sampled_from(["", ":80", ":8080", ":443"]), st.text(max_size=10))
def test_whoever_connects_reads_the_same_host_as_whoever_checked(
    host: str, port: str, path: str
) -> None:
    try:
        url = read_url(f"http://{host}{port}/{path}")
    except ValueError:
        return
    dialled = httpx2.URL(str(url))
    assert dialled.raw_host.decode("ascii") == url.host.name
    assert (dialled.port or 80) == url.port
    assert dialled.userinfo == b""
    assert read_url(str(url)) == url
    if url.host.address is None:
        with pytest.raises(OSError, match="illegal IP address"):  # a name for the system, too
            socket.inet_aton(url.host.name)
        assert read_host(url.host.name) == url.host
