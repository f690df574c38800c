"""What a model says it is, as ``GET /v1/models`` answers it."""

from __future__ import annotations

import attrs


@attrs.frozen
class ModelInfo:
    """What a model is: its names, its window in tokens (0 = unknown), its prices per 1M tokens.

    ``is_language_model`` is false for the built-in planner, which says so itself.
    """

    provider: str
    model: str
    name: str = ""
    context_window: int = 0
    max_output_tokens: int = 0
    cost_per_1m_in: float | None = None
    cost_per_1m_out: float | None = None
    is_language_model: bool = True
