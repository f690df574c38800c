"""Programs that only read and show, and the arguments with which that is so: a closed table.

What is not in it needs permission: another program, another flag, an abbreviated flag, a value
that could mean something else. Each flag was looked up in the manuals of GNU and BSD; a flag that
follows links, names a file of its own, starts a program or never ends is not in the table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import attrs

from crush_trio.tools.shell.plain import words

Operands = tuple[str, ...]


class NotSafe(Exception):
    """These arguments need permission; the text says which one, and why."""


@attrs.frozen
class Uses:
    """What a command's arguments name.

    Args:
        paths: What is read.
        files: Whether each of them must be a file.
        perhaps: Words that another implementation of the program might take for paths.
    """

    paths: Operands = ()
    files: bool = False
    perhaps: Operands = ()


@attrs.frozen
class Program:
    """Which arguments of a program are harmless.

    Args:
        flags: Letters of short flags without a value, which may be joined.
        values: Short flags with a value, joined or as the next word, and what that may be.
        long: Long flags, whole.
        long_values: Long flags with a value, after ``=`` or as the next word.
        long_optional: Long flags with a value after ``=`` only.
        operands: What the other words mean; checks them too.
        number: Whether ``-5`` is a flag.
    """

    flags: str = ""
    values: Mapping[str, str] = attrs.Factory(dict)
    long: frozenset[str] = frozenset()
    long_values: Mapping[str, str] = attrs.Factory(dict)
    long_optional: Mapping[str, str] = attrs.Factory(dict)
    operands: Callable[[Operands, frozenset[str]], Uses] = lambda operands, _seen: Uses(operands)
    number: bool = False

    def uses(self, arguments: Sequence[str]) -> Uses:
        """What these arguments name.

        Raises:
            NotSafe: One of them is not in the table.
        """
        operands: list[str] = []
        perhaps: list[str] = []
        seen: set[str] = set()
        rest = list(arguments)
        while rest:
            before = tuple(rest)
            word = rest.pop(0)
            if word == "--":
                operands += rest
                break
            if word.startswith("--"):
                seen.add(self._long(word, rest))
            elif word.startswith("-") and word != "-":
                seen |= self._short(word, rest)
            else:
                operands.append(word)
                continue
            if operands:  # a getopt that does not reorder has come to the operands already
                perhaps += before[: len(before) - len(rest)]
        if perhaps and self.operands is _at_most_one:  # there it would be the second file
            raise NotSafe(f"the flag {perhaps[0]} behind a file")
        uses = self.operands(tuple(operands), frozenset(seen))
        return uses if self.operands is _text_only else attrs.evolve(uses, perhaps=tuple(perhaps))

    def _long(self, word: str, rest: list[str]) -> str:
        name, joined, value = word.partition("=")
        if joined and name in self.long_optional:
            if re.fullmatch(self.long_optional[name], value):
                return name
        elif name in self.long_values:
            if not joined:
                value = rest.pop(0) if rest else "\0"
            if re.fullmatch(self.long_values[name], value, re.DOTALL):
                return name
        elif word in self.long:
            return word
        raise NotSafe(f"the flag {word}")

    def _short(self, word: str, rest: list[str]) -> set[str]:
        if self.number and re.fullmatch(r"-\d{1,9}", word):
            return set()
        seen: set[str] = set()
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            seen.add(f"-{letter}")
            if letter in self.values:
                value = letters or (rest.pop(0) if rest else "\0")
                if not re.fullmatch(self.values[letter], value, re.DOTALL):
                    raise NotSafe(f"the value of the flag -{letter}")
                break
            if letter not in self.flags:
                raise NotSafe(f"the flag {word}")
        return seen


# --- values ------------------------------------------------------------------------------

_COUNT = r"\d{1,9}"
_SIZE = r"[+-]?\d{1,9}([bkKMG]|KB|MB)?"
_TEXT = r"[^\0]*"
_LIST = r"[\d,-]{1,200}"
_KEY = r"\d{1,4}(\.\d{1,4})?[bdfgiMhnRrV]*(,\d{1,4}(\.\d{1,4})?[bdfgiMhnRrV]*)?"
_WHEN = r"(never|always|auto)"
_COLOUR: Final[Mapping[str, str]] = {"--color": _WHEN, "--colour": _WHEN}


# --- operands ----------------------------------------------------------------------------


def _text_only(_operands: Operands, _seen: frozenset[str]) -> Uses:
    return Uses()


def _none(operands: Operands, _seen: frozenset[str]) -> Uses:
    if operands:
        raise NotSafe(f"the argument {operands[0]!r}")
    return Uses()


def _all_like(pattern: str) -> Callable[[Operands, frozenset[str]], Uses]:
    def check(operands: Operands, _seen: frozenset[str]) -> Uses:
        for operand in operands:
            if not re.fullmatch(pattern, operand, re.DOTALL):
                raise NotSafe(f"the argument {operand!r}")
        return Uses()

    return check


def _at_most_one(operands: Operands, _seen: frozenset[str]) -> Uses:
    if len(operands) > 1:
        raise NotSafe("a second file, which it would write")
    return Uses(operands)


def _pattern_first(operands: Operands, seen: frozenset[str]) -> Uses:
    """A pattern and then paths, or paths alone where a flag has given the pattern."""
    given = seen & {"-e", "--regexp", "--files", "--type-list"}
    return Uses(operands if given else operands[1:])


def _no_plus(operands: Operands, seen: frozenset[str]) -> Uses:
    """Files, but none that begins with a plus: ``tail +1f`` is an old spelling of ``tail -f``."""
    _none(tuple(operand for operand in operands if operand.startswith("+")), seen)
    return Uses(operands)


def _files_only(operands: Operands, _seen: frozenset[str]) -> Uses:
    return Uses(operands, files=True)


_NAMES = _all_like(r"[A-Za-z0-9_][A-Za-z0-9._+-]*|\[")


# --- the table ---------------------------------------------------------------------------

_GREP = Program(
    flags="EFGPivwxyclLqsbHhnoraITU",
    values={"e": _TEXT, "m": _COUNT, "A": _COUNT, "B": _COUNT, "C": _COUNT},
    long=words(
        "--extended-regexp --fixed-strings --basic-regexp --perl-regexp --ignore-case "
        "--no-ignore-case --invert-match --word-regexp --line-regexp --count --files-with-matches "
        "--files-without-match --only-matching --quiet --silent --no-messages --byte-offset "
        "--with-filename --no-filename --line-number --null --text --recursive --color --colour"
    ),
    long_optional=_COLOUR,
    long_values={
        **dict.fromkeys(("--include", "--exclude", "--exclude-dir", "--regexp"), _TEXT),
        **dict.fromkeys(
            ("--max-count", "--after-context", "--before-context", "--context"), _COUNT
        ),
    },
    operands=_pattern_first,
    number=True,
)
_SUMS = Program(flags="bt", long=words("--binary --text --tag"))
_WC_HEAD: Final[Mapping[str, str]] = {"n": _SIZE, "c": _SIZE}

PROGRAMS: Final[Mapping[str, Program]] = {
    "basename": Program(flags="az", values={"s": _TEXT}, operands=_text_only),
    "cal": Program(flags="13jmsy", operands=_all_like(r"\d{1,4}")),
    "cat": Program(
        flags="AbeEnstTuv", long=words("--number --number-nonblank --show-all --squeeze-blank")
    ),
    "cmp": Program(flags="bls", values={"n": _COUNT}, operands=_files_only),
    "cut": Program(
        flags="nsz",
        values={"b": _LIST, "c": _LIST, "f": _LIST, "d": _TEXT},
        long=words("--complement --only-delimited"),
        long_values={
            **dict.fromkeys(("--bytes", "--characters", "--fields"), _LIST),
            **dict.fromkeys(("--delimiter", "--output-delimiter"), _TEXT),
        },
    ),
    "date": Program(
        flags="uR",
        values={"d": _TEXT},
        long=words("--utc --universal --rfc-email --iso-8601"),
        long_values={"--date": _TEXT},
        long_optional={"--iso-8601": r"(date|hours|minutes|seconds|ns)"},
        operands=_all_like(r"\+.*"),
    ),
    "df": Program(flags="hHkmTiPal", long=words("--human-readable --si --print-type --inodes")),
    "diff": Program(
        flags="abBcdeiNpqstuwyZE",
        values={"U": _COUNT, "C": _COUNT, "W": _COUNT},
        long=words("--brief --unified --ignore-all-space --ignore-blank-lines --side-by-side"),
        long_optional={"--color": _WHEN, "--unified": _COUNT},
        operands=_files_only,
    ),
    "dirname": Program(flags="z", operands=_text_only),
    "du": Program(
        flags="0abchkmsxS",
        values={"d": _COUNT},
        long=words("--all --apparent-size --human-readable --summarize --total --si"),
        long_values={"--max-depth": _COUNT, "--exclude": _TEXT},
    ),
    "egrep": _GREP,
    "false": Program(operands=_text_only),
    "fgrep": _GREP,
    "file": Program(flags="bhikN", long=words("--brief --mime --mime-type --mime-encoding")),
    "grep": _GREP,
    "head": Program(
        flags="qvz",
        values=_WC_HEAD,
        long=words("--quiet --silent --verbose"),
        long_values={"--lines": _SIZE, "--bytes": _SIZE},
        number=True,
    ),
    "hostname": Program(operands=_none),
    "id": Program(flags="gGnru", operands=_none),
    "ls": Program(
        flags="1aAbBcCdfFgGhiklmnNopqQrRsStuUvxXZ",
        long=words(
            "--all --almost-all --classify --color --directory --full-time "
            "--group-directories-first "
            "--human-readable --inode --no-group --numeric-uid-gid --recursive --reverse --size"
        ),
        long_optional=_COLOUR,
        long_values={
            "--ignore": _TEXT,
            "--sort": r"(none|size|time|version|extension|name|width)",
            "--time-style": r"(full-iso|long-iso|iso|locale)",
        },
    ),
    "md5sum": _SUMS,
    "nl": Program(
        flags="p",
        values={
            "b": r"[atn]",
            "f": r"[atn]",
            "h": r"[atn]",
            "i": _COUNT,
            "l": _COUNT,
            "n": r"(ln|rn|rz)",
            "s": _TEXT,
            "v": _COUNT,
            "w": r"\d{1,3}",
        },
    ),
    "pwd": Program(flags="LP", operands=_none),
    "readlink": Program(flags="efmnqsvz", long=words("--canonicalize")),
    "realpath": Program(
        flags="emqsz",
        long=words("--canonicalize-existing --canonicalize-missing --no-symlinks --strip"),
    ),
    "rg": Program(
        flags="FHINPSUVabcilnopqsuvwx0",
        values={
            **dict.fromkeys("ABCm", _COUNT),
            **dict.fromkeys("eg", _TEXT),
            **dict.fromkeys("tT", r"[a-z0-9]+"),
            "d": _COUNT,
            "M": _COUNT,
            "j": r"\d",
        },
        long=words(
            "--case-sensitive --column --count --count-matches --files --files-with-matches "
            "--files-without-match --fixed-strings --heading --hidden --ignore-case --invert-match "
            "--json --line-number --line-regexp --multiline --multiline-dotall --no-filename "
            "--no-heading --no-ignore --no-ignore-vcs --no-line-number --no-messages --null "
            "--only-matching --pcre2 --quiet --smart-case --stats --text --trim --type-list "
            "--unrestricted --version --vimgrep --with-filename --word-regexp"
        ),
        long_values={
            "--color": r"(never|auto|always|ansi)",
            "--sort": r"(none|path|modified|accessed|created)",
            "--sortr": r"(none|path|modified|accessed|created)",
            **dict.fromkeys(("--type", "--type-not"), r"[a-z0-9]+"),
            **dict.fromkeys(("--glob", "--iglob", "--regexp"), _TEXT),
            **dict.fromkeys(
                (
                    *("--after-context", "--before-context", "--context", "--max-columns"),
                    *("--max-count", "--max-depth"),
                ),
                _COUNT,
            ),
        },
        operands=_pattern_first,
    ),
    **dict.fromkeys((f"sha{bits}sum" for bits in (1, 224, 256, 384, 512)), _SUMS),
    "sort": Program(
        flags="bcCdfghiMmnrRsuVz",
        values={"k": _KEY, "t": r".{0,2}"},
        long=words(
            "--general-numeric-sort --human-numeric-sort --ignore-case --month-sort "
            "--numeric-sort --random-sort --reverse --stable --unique --version-sort --check"
        ),
        long_values={"--key": _KEY, "--field-separator": r".{0,2}"},
    ),
    "stat": Program(
        flags="t",
        values={"c": _TEXT},
        long=words("--terse"),
        long_values={"--format": _TEXT, "--printf": _TEXT},
    ),
    "tail": Program(
        flags="qrvz",
        values=_WC_HEAD,
        long=words("--quiet --silent --verbose"),
        long_values={"--lines": _SIZE, "--bytes": _SIZE},
        operands=_no_plus,
        number=True,
    ),
    "tr": Program(
        flags="cCdst", long=words("--complement --delete --squeeze-repeats"), operands=_text_only
    ),
    "tree": Program(
        flags="aACdDfFhiJnNpQrsStuUvXx",
        values={"L": _COUNT, "I": _TEXT, "P": _TEXT},
        long=words("--dirsfirst --du --noreport --prune --si --matchdirs --ignore-case"),
        long_values={"--filelimit": _COUNT, "--charset": r"[A-Za-z0-9-]+"},
    ),
    "true": Program(operands=_text_only),
    "type": Program(flags="aptP", operands=_NAMES),
    "uname": Program(flags="aimnoprsv", long=words("--all --machine"), operands=_none),
    "uniq": Program(
        flags="cdDiuz",
        values={"f": _COUNT, "s": _COUNT, "w": _COUNT},
        long=words("--count --repeated --unique --ignore-case"),
        operands=_at_most_one,
    ),
    "wc": Program(flags="clLmw", long=words("--bytes --chars --lines --max-line-length --words")),
    "which": Program(flags="as", operands=_NAMES),
    "whoami": Program(operands=_none),
}
"""Programs whose arguments follow the rules of getopt; `safe_words` knows a few more."""
