"""Measurements of h3trio beside its peers, in one run and on one machine: see README.md."""
