"""The grammars of prompts."""
