"""The routes of each API."""
