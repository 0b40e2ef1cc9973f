"""The decision core: pure functions of observed data.

No I/O, clock, randomness or logging in here; the import contracts check it. `decide.decide` is the way in.
"""
