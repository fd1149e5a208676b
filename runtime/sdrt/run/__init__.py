"""From a request to images: encode, prepare, denoise, decode."""
