"""The command `securekd`."""
