"""Pairwise masking (Bonawitz et al. 2017) as two state machines without input or output."""
