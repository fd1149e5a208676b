"""What the goldens in `tests/goldens` are, and the programs that record them."""
