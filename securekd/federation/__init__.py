"""The parties of a federation, and how they play a round."""
