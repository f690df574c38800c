"""Whole programs: the real server process, real sockets, the real command line."""
