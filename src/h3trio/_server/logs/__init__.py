"""Log records: made fit for a log, and written as JSON."""
