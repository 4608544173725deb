"""Access control of the hub server: tokens, rights, rates."""
