"""Words of another server, fit to stand in a sentence of ours; pure."""

from __future__ import annotations

import re

from crush_trio import limits

_REMOVED = "[removed]"
_SECRETS = re.compile(
    r"\b(?:sk|pk|rk|gsk|xai|hf|csk|nvapi|pplx|tgp|r8|sess)[-_][A-Za-z0-9_.*-]{4,}"
    r"|\bAIza[A-Za-z0-9_*-]{6,}"
    r"|\beyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)*"
    r"|(?<=Bearer )[^\s\"',]{4,}"
    r"|(?<=[?&]key=)[^\s&\"']+"
    r"|\b(?=[A-Za-z_]*[0-9])(?=[0-9_]*[A-Za-z])[A-Za-z0-9_]{24,}\b"
    r"|\*{3,}[A-Za-z0-9]*|[A-Za-z0-9_-]+\*{3,}[A-Za-z0-9]*",
    re.IGNORECASE,
)
_NAMED_SECRET = re.compile(
    r"(\b(?:api[-_ ]?key|key|token|secret|password)(?: provided)?[\"']?\s*[:=]\s*[\"']?)"
    r"[^\s\"',;]{6,}",
    re.IGNORECASE,
)
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


def quotable(text: str) -> str:
    """One line without control characters and whatever looks like a key, cut in length."""
    line = _CONTROLS.sub(" ", text[: limits.PROVIDER_WORDS_CHARS * 4]).strip()
    line = _SECRETS.sub(_REMOVED, _NAMED_SECRET.sub(rf"\1{_REMOVED}", line))
    line = " ".join(line.split()).encode("utf-8", "replace").decode()
    if len(line) > limits.PROVIDER_WORDS_CHARS:
        line = line[: limits.PROVIDER_WORDS_CHARS - 1].rstrip() + "…"
    return line
