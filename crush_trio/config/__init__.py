"""Configuration: where it is read from, what it may say, and how it is shown."""
