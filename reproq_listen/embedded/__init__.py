"""A PostgreSQL of our own, for demos, tests and `--embedded`."""
