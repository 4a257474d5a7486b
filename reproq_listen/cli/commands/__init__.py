"""One module a command: its USAGE, and `run`, which returns the exit code. `cli/main.py` lists them."""
