"""One run: what it may use, what drives it, and the kinds of work it can be."""
