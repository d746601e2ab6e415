"""Attacks: on membership, from what an adversary sees of records or of releases, and on the inputs themselves.

`attack` has the protocol that every membership attack keeps; `lira` and `rmia` are the formulas that `reference` uses.
"""
