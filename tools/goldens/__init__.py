"""The cases of the goldens in `tests/goldens`, and the programs that record them."""
