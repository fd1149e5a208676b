"""Images as arrays and files, and the text in them that says how they were made."""
