"""What a run does: ask the model, run its tools, repeat until it stops."""
