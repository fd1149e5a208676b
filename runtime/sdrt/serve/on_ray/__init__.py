"""Images made on a Ray cluster. Only the processes that drive it, and those on it, import Ray."""
