"""The worker process: one service, one file."""
