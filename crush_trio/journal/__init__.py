"""The one ordered event log as subscribers see it (G8, G9)."""

from crush_trio.journal.entries import FeedEntry, control_entry, present_message, transient_entry
from crush_trio.journal.feed import Feed
from crush_trio.journal.journal import Journal
from crush_trio.journal.reader import JournalReader

__all__ = [
    "Feed",
    "FeedEntry",
    "Journal",
    "JournalReader",
    "control_entry",
    "present_message",
    "transient_entry",
]
