"""An embedded PostgreSQL for the demo, tests and `--embedded`."""
