"""Sweeps: many runs that differ in a few settings, the table of what they gave, and the frontier in it."""
