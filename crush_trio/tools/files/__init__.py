"""Tools that read and change one file."""
