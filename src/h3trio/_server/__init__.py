"""The server: connections, requests on their way through a handler, and streams."""
