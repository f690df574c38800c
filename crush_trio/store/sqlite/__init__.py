"""The store on SQLite; no SQL and no SQLite type leaves this package."""

from crush_trio.store.sqlite.store import SqliteStore, open_store

__all__ = ["SqliteStore", "open_store"]
