"""What a model says it is, as ``GET /v1/models`` answers it."""

from __future__ import annotations

import attrs


@attrs.frozen
class ModelInfo:
    """What a model is: its names, its window in tokens (0 = unknown), its prices.

    Prices are US dollars per million tokens; ``None`` is unknown, which is not the same as free.
    ``…_in_cached`` is for tokens written to the provider's cache, ``…_out_cached`` for tokens read
    from it (CW 10.2). ``max_output_tokens`` is the usual limit of one answer (0 = the provider's).
    ``supports_attachments`` means images; it and ``supports_tools`` are ``None`` if nobody knows.
    ``reports_cost`` says that each answer comes with its own cost, so that no prices are needed.
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
    cost_per_1m_in_cached: float | None = None
    cost_per_1m_out_cached: float | None = None
    can_reason: bool = False
    reasoning_levels: tuple[str, ...] = ()
    default_reasoning_effort: str = ""
    supports_attachments: bool | None = None
    supports_tools: bool | None = None
    reports_cost: bool = False
