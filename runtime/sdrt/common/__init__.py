"""What every other package may use: messages, progress, interrupts, seeds, the cache folder."""
