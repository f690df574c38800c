"""What ``run`` looks up at the server before it sends its prompt."""

from __future__ import annotations

from crush_trio.cli.link import Link
from crush_trio.client.errors import Misconfigured, ServerRefused
from crush_trio.client.shapes import JsonObject, child, text


async def earlier(link: Link, run_id: str) -> JsonObject | None:
    """The run of that name, if there is one already."""
    try:
        return await link.api.run(run_id)
    except ServerRefused as exc:
        if exc.status != 404:
            raise
    return None


async def check_model(
    link: Link, workspace: str, wanted: str | None, client_id: str | None
) -> None:
    """Refuse to go on when only the built-in planner would answer (``--require-model``).

    What cannot be used at all is refused with its own sentence when the prompt is sent.

    Raises:
        Misconfigured: No language model is configured, or it is not what ``wanted`` names.
    """
    provider = wanted.partition("/")[0] if wanted else None
    if provider is None:
        agent = await link.api.agent(workspace, client_id)
        provider = text(child(agent, "model_cfg"), "provider")
    if provider == "offline":
        raise Misconfigured(
            "no language model is configured: name one with -m, or set a provider's key "
            "(for example OPENAI_API_KEY); see crush-trio models"
        )
