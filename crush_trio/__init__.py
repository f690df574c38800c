"""crush-trio: a coding-agent server and command line built on Trio."""

__version__ = "0.1.0"
