"""Rows from a source to raw tables."""
