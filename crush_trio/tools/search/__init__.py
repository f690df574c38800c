"""Tools that look through a directory."""
