"""The executors `spawn` and `fork`: one process for each attempt."""
