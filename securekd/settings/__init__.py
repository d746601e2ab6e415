"""What a user asks for: the experiment, its tables, and their files."""
