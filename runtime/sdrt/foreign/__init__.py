"""The words of other programs, mostly diffusers': what each is, and what sdrt has for it.

A word that sdrt lacks is an error that says what to write instead. `docs/from-diffusers.md` lists all of them.
"""
