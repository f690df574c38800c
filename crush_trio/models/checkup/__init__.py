"""Whether a model of a provider really works: reached, listed, streaming, counting, using tools."""

from __future__ import annotations

from crush_trio.models.checkup.steps import Hints as Hints
from crush_trio.models.checkup.steps import ModelCheckup as ModelCheckup
