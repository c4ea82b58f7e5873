"""Run the command line by `python -m chatgate`."""

from chatgate.cli import main

main()
