"""Providers and models as data: shipped with a date, refreshable, overridable in configuration."""

from __future__ import annotations

from crush_trio.models.catalogue.catalogue import Catalogue as Catalogue
from crush_trio.models.catalogue.catalogue import CatalogueProvider as CatalogueProvider
from crush_trio.models.catalogue.load import FILE as FILE
from crush_trio.models.catalogue.load import load as load
