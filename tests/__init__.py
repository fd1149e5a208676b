"""The tests; a package, so that they import one another's helpers from `tests`."""
