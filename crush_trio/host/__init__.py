"""Lifetimes: the server's workspaces, their sessions and the runs that are driven in them."""
