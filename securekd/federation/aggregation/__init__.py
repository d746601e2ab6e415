"""How releases are added up: one module a way, with the part of each party."""
