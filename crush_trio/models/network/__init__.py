"""The one way to a provider over HTTP: connections, time limits, retries."""
