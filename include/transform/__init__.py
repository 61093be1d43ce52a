"""From raw tables to tested models."""
