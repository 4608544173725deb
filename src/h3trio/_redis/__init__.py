"""A client of Redis and Valkey on Trio: addresses, connections, calls. It knows nothing of hubs."""
