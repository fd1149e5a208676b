"""The autoencoder, whole and in tiles, and previews."""
