"""The peers of connections: their addresses, and the proxies that name others."""
