"""Tools that read the web: only addresses that a policy vetted, only so much, only so long."""
