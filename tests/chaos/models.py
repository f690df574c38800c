"""The script models of the chaos clients, and a hostile shell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

QUICK_TEXT = "The answer is forty-two."
HOSTILE = (
    "trap '' TERM INT HUP; me() { set -- $(cat /proc/$$/stat); echo $$@${22} >> {home}/pids; };"
    ' (setsid sh -c \'trap "" TERM INT HUP; set -- $(cat /proc/$$/stat);'
    " echo $$@${22} >> {home}/pids; exec env -i /bin/sleep 600' &); me; echo began;"
    " while :; do sleep 5; done"
)


def write(home: Path) -> dict[str, str]:
    """Writes the files; ``{kind: model name}``."""
    tool = {"description": "chaos"}
    hostile = HOSTILE.replace("{home}", str(home))
    made: dict[str, list[list[dict[str, Any]]]] = {
        "quick": [[{"text": QUICK_TEXT}]],
        "slow": [[{"text": "word ", "tokens": 60, "every_ms": 15}]],
        "hold": [[{"text": "partial "}, {"silence": True}]],
        "tools": [
            [
                {"text": "Looking. "},
                {"tool": "bash", "input": {"command": "echo out; echo err >&2", **tool}},
                {"tool": "ls", "input": {"path": "."}},
            ],
            [{"tool": "bash", "input": {"command": "(sleep 30 &) ; echo left", **tool}}],
            [{"text": "Done."}],
        ],
        "hostile": [[{"tool": "bash", "input": {"command": hostile, **tool}}], [{"text": "x"}]],
        "break": [[{"text": "This "}, {"cut": True}]],
    }
    names = {}
    for kind, steps in made.items():
        path = home / f"{kind}.json"
        path.write_text(json.dumps({"steps": [{"actions": step} for step in steps]}))
        names[kind] = f"script/{path}"
    return names
