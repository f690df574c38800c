"""``offline/scout``: no language model, but a fixed set of commands that work through tools."""
