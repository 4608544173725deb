"""The wire format: one event, a reader of event streams, and frames on their way. No I/O."""
