"""DP-SGD: which models it can train, and how their gradients are clipped."""
