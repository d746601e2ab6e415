"""Who teaches whom in a round: one module a strategy, with both halves."""
