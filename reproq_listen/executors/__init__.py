"""The worker's side of running tasks: starts, watches and stops child processes."""
