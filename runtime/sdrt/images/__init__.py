"""Images as arrays and files, and the metadata that says how they were made."""
