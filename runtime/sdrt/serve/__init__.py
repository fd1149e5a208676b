"""`sdrt serve`: images over HTTP. One process answers requests, and others, its workers, make the images."""
