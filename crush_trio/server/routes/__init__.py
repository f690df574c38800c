"""The routes of contract 3 and the websocket of contract 4: decode, ask the host, encode."""
