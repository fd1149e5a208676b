"""`sdrt doctor`."""
