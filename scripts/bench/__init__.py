"""Measurements: each is a `make bench-…` command."""
