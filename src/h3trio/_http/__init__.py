"""HTTP as values: heads, fields, cookies, settings, errors, and the framing by h11. No I/O."""
