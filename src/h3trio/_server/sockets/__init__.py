"""Sockets and listeners: the bytes below a connection."""
