"""Models by name: every client and the student get theirs from `build`."""
