"""The command line: thin commands over plain Python functions."""
