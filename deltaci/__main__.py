"""`python -m deltaci`."""

from deltaci.cli import main

main(prog_name="deltaci")
