"""Histories: what keeps the log, and the values that go in and come out."""
