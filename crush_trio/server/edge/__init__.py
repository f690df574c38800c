"""The edge of the server: sockets, connections, who may come in, and how an answer looks."""
