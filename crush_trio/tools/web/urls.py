"""URLs that tools may ask for: read once, written in one spelling; pure.

What is checked and what is connected to come from the same `WebUrl`, so no second parser can read
another host into it.
"""

from __future__ import annotations

import re
import urllib.parse
from typing import Final

import attrs

from crush_trio.http.hosts import Host, read_authority
from crush_trio.limits import FETCH_URL_CHARS

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_URL: Final = re.compile(
    r"(?P<scheme>https?)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?P<query>\?[^#]*)?(?:#.*)?",
    re.IGNORECASE | re.DOTALL,
)
_UNFIT: Final = re.compile(r"[\x00-\x20\x7f\\]")
_KEPT: Final = "%/:?#[]@!$&'()*+,;=-._~"
"""What is left as it is in paths and queries, besides letters and digits."""


@attrs.frozen
class WebUrl:
    """An http or https URL without user, password and fragment; ``path`` holds the query, too."""

    scheme: str
    host: Host
    port: int
    path: str

    @property
    def origin(self) -> str:
        """Scheme, host and, if it is not the usual one, port."""
        port = "" if self.has_usual_port else f":{self.port}"
        return f"{self.scheme}://{self.host.in_url}{port}"

    @property
    def has_usual_port(self) -> bool:
        """Whether the port is the scheme's own."""
        return self.port == _DEFAULT_PORTS[self.scheme]

    def __str__(self) -> str:
        return self.origin + self.path


def read_url(text: str) -> WebUrl:
    """The URL that ``text`` spells.

    Raises:
        ValueError: It spells none that may be asked for; the text is one sentence.
    """
    text = text.strip(" \t\r\n")
    if len(text) > FETCH_URL_CHARS:
        raise ValueError(f"the URL is longer than {FETCH_URL_CHARS} characters")
    if _UNFIT.search(text):
        raise ValueError("the URL holds a space, a backslash or a control character")
    match = _URL.fullmatch(text)
    if match is None:
        raise ValueError("the URL must begin with http:// or https://")
    if "@" in match["authority"]:
        raise ValueError("the URL must not hold a user name or password")
    if not match["authority"]:
        raise ValueError("the URL names no host")
    try:
        host, port = read_authority(match["authority"])
    except ValueError as problem:
        raise ValueError(f"the URL cannot be used: {problem}") from None
    scheme = match["scheme"].lower()
    try:
        path = urllib.parse.quote((match["path"] or "/") + (match["query"] or ""), safe=_KEPT)
    except UnicodeEncodeError:
        raise ValueError("the URL holds a character that is none") from None
    return WebUrl(scheme, host, port or _DEFAULT_PORTS[scheme], path)


def joined(base: WebUrl, location: str) -> WebUrl:
    """Where a redirect of ``base`` leads.

    Raises:
        ValueError: Nowhere that may be asked for; the text is one sentence.
    """
    location = location.strip(" \t")
    if len(location) > FETCH_URL_CHARS or _UNFIT.search(location):
        raise ValueError("it leads to what is no URL")
    try:
        return read_url(urllib.parse.urljoin(str(base), location))
    except ValueError as problem:
        raise ValueError(f"it leads to what cannot be fetched: {problem}") from None
