"""`python -m wsss`: the command line."""

from wsss.cli.main import run

run()
