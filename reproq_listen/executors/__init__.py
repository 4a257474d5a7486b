"""The worker's side of running tasks: starts, watches and stops children. Never imports `task/` or `db/`."""
