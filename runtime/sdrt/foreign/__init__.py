"""Names from other programs, mostly diffusers: what each means there, and what sdrt has for it.

The error for a name that sdrt lacks says what to write instead. `docs/from-diffusers.md` lists all names.
"""
