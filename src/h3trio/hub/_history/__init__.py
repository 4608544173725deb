"""The histories that keep a hub's log, and the values that go in and come out."""
