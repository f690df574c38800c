"""Our own programs work where somebody has bounded memory more tightly than they would."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PAGE = {"mode": "markdown", "base": "http://a.example/", "skip": 0, "most": 1_000}
LIST: dict[str, Any] = {"mode": "ls", "most": 2, "ignore": [], "depth": 1}


@pytest.mark.parametrize(
    ("program", "request_", "expected"),
    [
        pytest.param("web", PAGE, '{"title": "", "chars": 2}\nhi', id="page"),
        pytest.param("search", LIST, '["f", 1, false]\n{"truncated": false}\n', id="search"),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not bound address space")
def test_a_tighter_bound_of_the_users_is_kept_and_no_failure(
    tmp_path: Path, program: str, request_: dict[str, Any], expected: str
) -> None:
    (tmp_path / "f").touch()
    place = {"start": str(tmp_path), "root": str(tmp_path)}
    argv = (sys.executable, "-I", "-m", f"crush_trio.tools.{program}.program")
    done = subprocess.run(
        ["sh", "-c", 'ulimit -v 450000 && exec "$@"', "sh", *argv, json.dumps(request_ | place)],
        input="<p>hi</p>",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == (expected, "")
