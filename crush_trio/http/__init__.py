"""HTTP connections of our own: dialled, secured, kept and closed in one place."""
