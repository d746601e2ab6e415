"""`python -m securekd` is the command `securekd`."""

from securekd.cli import main

main()
