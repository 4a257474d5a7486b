"""The forkserver: a process that has imported the application once, and forks children on request."""
