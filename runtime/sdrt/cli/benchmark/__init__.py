"""`sdrt benchmark`."""
