"""The process that has imported the application once and forks children."""
