"""What a client lets go of in a round: its shape, its bounds, and how it is asked for."""
