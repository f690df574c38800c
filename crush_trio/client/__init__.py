"""Talking to a server: one HTTP exchange, typed calls, the event stream, finding and starting."""
