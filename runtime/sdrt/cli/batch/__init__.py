"""`sdrt batch`: the images of a table of prompts."""
