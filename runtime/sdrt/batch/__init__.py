"""`sdrt batch`: the images of a table of prompts, on this machine or on many."""
