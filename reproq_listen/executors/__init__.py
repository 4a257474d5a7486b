"""What runs a task: one child process an attempt, supervised by the worker."""
