"""The history in an SQLite file."""
