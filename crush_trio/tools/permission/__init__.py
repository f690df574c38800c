"""Which calls are allowed, refused, or asked about."""
