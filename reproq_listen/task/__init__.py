"""Runs inside the process of a task. Imports the standard library and `protocol/` only."""
