"""Fan-out: from the log to each subscriber."""
