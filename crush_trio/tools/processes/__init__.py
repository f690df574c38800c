"""The processes that tools start: their trees, their output, their end."""
