"""Model servers of this machine: found on loopback, used when nothing is configured."""

from __future__ import annotations

from crush_trio.models.local.finding import KINDS as KINDS
from crush_trio.models.local.finding import Found as Found
from crush_trio.models.local.finding import LocalServer as LocalServer
from crush_trio.models.local.finding import LocalServers as LocalServers
from crush_trio.models.local.finding import find as find
