"""Stand-ins for the source and the warehouse on one machine; never imported in production."""
