"""The fan-out of records from the log to each subscriber."""
