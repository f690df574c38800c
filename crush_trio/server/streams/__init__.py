"""Subscribers on websockets: what they ask for, what they are sent, how their sockets end."""
