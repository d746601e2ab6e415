"""`python -m securekd` is the command `securekd`."""

from securekd.cli.command import main

main()
