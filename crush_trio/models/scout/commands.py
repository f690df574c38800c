"""The table of commands: which words call which plan."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from crush_trio.agent.ports import ModelError
from crush_trio.models.scout import files, search
from crush_trio.models.scout.plan import Plan
from crush_trio.models.scout.survey import survey

CAN_DO: Final = (
    "Survey this repository; find X; where is X; grep PATTERN [in PATH]; read FILE [lines 10-40]; "
    "outline FILE; list [DIR]; TODOs; what changed; run `COMMAND`; "
    'replace "A" with "B" in FILE'
)
_WORDS: Final = {
    "PROJECT": r"(?:(?:the|this|my|our|your) )?(?:current |git )?(?:repo(?:sitory)?|project|code"
    r"|code ?base|package|library|directory|folder|workspace)",
    "QUOTED": "[\"“'‘`](?P<quoted>(?s:.+?))[\"”'’`]",
    "IN": r"(?: (?:in|inside|within|under) (?P<path>\S+))?",
    "FILE": "(?:the )?(?:file )?[\"“'‘`]?(?P<file>[^\\s\"”'’`]+?)[\"”'’`]?",
    "LINES": r"(?:(?:,? (?:from )?lines? |:)(?P<first>\d+)(?: ?(?:-|–|to|:) ?(?P<last>\d+))?)?",
    "USES": r"(?:(?:definitions?|uses?|usages?|references?|callers?)(?: of| to)? )?",
    "KIND": r"(?:(?:function|class|method|file|variable|constant|string|text|word)(?:e?s)? )?",
    "DEFINED": r"(?: (?:defined|implemented|used|located|declared|set))?",
}
# A row: the words that call it (all of the prompt, in any case; a blank stands for any number of
# them, a `<NAME>` for an entry of `_WORDS`), and the plan they call. The first row that fits wins.
_TABLE: Final[tuple[tuple[str, Callable[[dict[str, str]], Plan]], ...]] = (
    (
        r"(?:survey|overview of|describe|summari[sz]e|explain|explore|analy[sz]e|tell me about"
        r"|give me an overview of) (?:<PROJECT>|this)|survey|overview"
        r"|what(?: is|'s|’s) (?:this|<PROJECT>|in here)(?: about| for)?|what does <PROJECT> do",
        lambda said: survey(),
    ),
    (
        "replace (?:all |every )?<QUOTED> (?:with|by) [\"“'‘`](?P<new>(?s:.*?))[\"”'’`] in <FILE>",
        lambda said: files.replace(said["quoted"], said.get("new", ""), said["file"]),
    ),
    (
        r"(?:run|execute)(?: the command)?:? `(?P<quoted>[^`]+)`|(?:run|execute|\$) (?P<plain>.+)",
        lambda said: files.run(said.get("quoted") or said["plain"]),
    ),
    (
        r"(?:(?:show|list|find|what are|give me|are there)(?: me)? )?(?:all |any )?(?:the )?"
        r"(?:open )?(?:todos?|fixmes?)(?:(?:,| and| or|/) ?fixmes?)?(?: (?:in <PROJECT>|here))?",
        lambda said: search.todos(),
    ),
    (
        r"(?:show (?:me )?)?(?:what(?: has|'s|’s| have| is)?(?: been)? (?:changed|new)"
        r"|(?:the )?(?:recent |latest )?(?:changes|commits|git status|git log|git diff|history))"
        r"(?: (?:recently|lately|here|in <PROJECT>))?",
        lambda said: files.what_changed(),
    ),
    (
        r"(?:(?:show )?(?:the )?outline(?: of)?|(?:symbols|functions|classes) in) <FILE>",
        lambda said: files.outline(said["file"]),
    ),
    (
        r"(?:list|ls|tree|show)(?: (?:all )?(?:the )?files)?(?: in| of)? (?:<PROJECT>|here)"
        r"|(?:what|which) files are (?:there|here)|(?:list|ls|tree)(?: (?:all )?(?:the )?files)?"
        r"|(?:list|ls|tree)(?: (?:the )?(?:files|directory|folder))?(?: in| of)? (?P<path>\S+)",
        lambda said: files.listing(said.get("path", ".")),
    ),
    (
        r"(?:read|show|cat|view|open|print|display)(?: me)? <FILE><LINES>",
        lambda said: files.read(said["file"], said.get("first"), said.get("last")),
    ),
    (
        r"(?:grep|rg)(?: for)? (?:<QUOTED>|(?P<plain>.+?))<IN>",
        lambda said: search.grep(said.get("quoted") or said["plain"], said.get("path", ".")),
    ),
    (
        r"(?:find|search|look|locate|where(?: is|'s|’s| are))(?: for)?(?: all| every)?(?: the)? "
        r"<USES><KIND>(?:(?:named|called) )?(?:<QUOTED>|(?P<plain>\S+?(?: \S+?){0,3}?))"
        r"<DEFINED><IN>",
        lambda said: search.find(said.get("quoted") or said["plain"], said.get("path", ".")),
    ),
    (r"help|what can you do", lambda said: _commands()),
)
_POLITE: Final = re.compile(
    r"(?:(?:please|hey|hi|hello|(?:can|could|would) you(?: please)?)[,:!]? )+", re.IGNORECASE
)
_LITERAL: Final = re.compile(r"(?:grep|rg|run|execute|\$)\s", re.IGNORECASE)


def _compiled(words: str) -> re.Pattern[str]:
    for name, pattern in _WORDS.items():
        words = words.replace(f"<{name}>", pattern)
    rows = words.replace(" ?", r"\s*").replace(" ", r"\s+")
    return re.compile(rows, re.IGNORECASE)


_COMMANDS: Final = tuple((_compiled(words), plan) for words, plan in _TABLE)


def command(prompt: str) -> Plan:
    """The plan the prompt asks for.

    Raises:
        ModelError: ``no_language_model``, with what it can do.
    """
    words = prompt.strip()
    if polite := _POLITE.match(words):
        words = words[polite.end() :]
    question = words.rstrip("?! ")
    for said in (words,) if _LITERAL.match(words) else (question, question.rstrip(".")):
        for pattern, plan in _COMMANDS:
            if match := pattern.fullmatch(said):
                return plan({key: text for key, text in match.groupdict().items() if text})
    raise ModelError(
        "no_language_model",
        f"No language model is configured, and offline/scout has only fixed commands: {CAN_DO}.",
        title="No language model",
    )


def _commands() -> Plan:
    yield from ()
    return "Without a language model these commands work:\n\n- " + CAN_DO.replace("; ", "\n- ")
