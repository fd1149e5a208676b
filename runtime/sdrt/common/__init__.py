"""Shared by all packages: messages, progress, interrupts, seeds, the cache folder."""
