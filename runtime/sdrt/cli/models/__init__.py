"""`sdrt models` and `sdrt info`."""
