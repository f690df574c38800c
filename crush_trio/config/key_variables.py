"""The environment variables that usually hold a provider's key; a command brings its own along."""

from __future__ import annotations

from typing import Final

KEY_VARIABLES: Final = (
    "AI_GATEWAY_API_KEY",
    "ANTHROPIC_API_KEY",
    "AZURE_API_KEY",
    "AZURE_OPENAI_API_KEY",
    "CEREBRAS_API_KEY",
    "DEEPSEEK_API_KEY",
    "FIREWORKS_API_KEY",
    "GEMINI_API_KEY",
    "GOOGLE_API_KEY",
    "GROQ_API_KEY",
    "HF_TOKEN",
    "KIMI_API_KEY",
    "LITELLM_API_KEY",
    "LLAMA_API_KEY",
    "LM_API_TOKEN",
    "MISTRAL_API_KEY",
    "MOONSHOT_API_KEY",
    "OPENAI_API_KEY",
    "OPENROUTER_API_KEY",
    "TOGETHER_API_KEY",
    "VERCEL_API_KEY",
    "VLLM_API_KEY",
    "XAI_API_KEY",
    "ZAI_API_KEY",
)
"""Those of every provider in the shipped catalogue, sorted; a test compares the two."""
