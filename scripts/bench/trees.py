"""A tree of files for searches, the same each time: nested, mixed sizes, partly ignored."""

from __future__ import annotations

import random
from pathlib import Path

FILES = 100_000
SEED = 20_261_123
WORDS = (  # noqa: SIM905  # a list of 25 literals is harder to read
    "alpha beta gamma delta request answer session workspace journal cursor event token stream "
    "queue cancel settle terminal permission question process launcher pipe signal return value"
).split()
ENDINGS = (".py", ".py", ".py", ".ts", ".ts", ".md", ".json", ".c", ".h", ".txt", ".log", ".png")
SIZES = (200, 400, 800, 1_600, 1_600, 3_200, 6_400, 20_000)


def make_tree(root: Path, files: int = FILES) -> int:
    """Write it below ``root``, which must not exist; returns the bytes written.

    Of all files about 8 % are ``*.log`` and 5 % lie in ``build`` directories, both ignored; one in
    1,000 holds ``needle_`` with its number. Directories hold 20 files and lie up to 6 deep.
    """
    chance = random.Random(SEED)
    texts = [_text(chance, size) for size in SIZES for _ in range(8)]
    root.mkdir(parents=True)
    (root / ".gitignore").write_text("*.log\nbuild/\n!keep.log\n/top-only\nnode_modules/\n*.pyc\n")
    directories = [root]
    written = 0
    for number in range(files):
        if number % 20 == 0:
            above = directories[chance.randrange(max(0, len(directories) - 400), len(directories))]
            here = root / "src" if len(above.parts) - len(root.parts) >= 5 else above
            name = "build" if chance.random() < 0.05 else f"part{number // 20:05}"
            here = here / f"{name}{number if name == 'build' and (here / name).exists() else ''}"
            here.mkdir(parents=True)
            if not name.startswith("build"):
                directories.append(here)
                if chance.random() < 0.01:
                    (here / ".gitignore").write_text("/local-*\n*.tmp\n")
        ending = chance.choice(ENDINGS)
        data = b"\x89PNG\0" + bytes(400) if ending == ".png" else chance.choice(texts)
        if number % 1_000 == 7:
            data += f"here is needle_{number}\n".encode()
        (here / f"file{number:06}{ending}").write_bytes(data)
        written += len(data)
    return written


def _text(chance: random.Random, size: int) -> bytes:
    lines: list[str] = []
    while sum(map(len, lines)) < size:
        lines.append(" ".join(chance.choices(WORDS, k=chance.randint(3, 14))) + "\n")
    return "".join(lines).encode()
