"""`sdrt generate` and `sdrt plot`."""
