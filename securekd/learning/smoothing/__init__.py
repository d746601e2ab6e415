"""Students and teachers that know the noise of what they learn from."""
