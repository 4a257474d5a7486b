"""What crosses the boundary between the worker and the process of a task. Both sides import it."""
