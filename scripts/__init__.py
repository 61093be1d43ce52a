"""Commands that people and CI run."""
