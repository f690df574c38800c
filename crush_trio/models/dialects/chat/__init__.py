"""Chat Completions, as OpenAI made it and everybody speaks it."""
