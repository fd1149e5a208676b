"""Makes the images of a request: encode, prepare, denoise, decode."""
