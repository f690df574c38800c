"""Decisions about runs: pure, synchronous, without Trio and without I/O."""
