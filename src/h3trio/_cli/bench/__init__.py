"""The command `bench`: a load generator for event streams."""
