"""Learning: from private records under differential privacy, and from soft labels on the transfer set."""
