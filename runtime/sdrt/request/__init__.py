"""Requests for images: the table of settings, and the checks of their values."""
