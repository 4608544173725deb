"""The app: routes and middleware in front of handlers."""
