"""The command line: `python -m h3trio`."""
