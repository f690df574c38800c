"""What is known of providers and their models: shipped as data, refreshed, overridden."""
