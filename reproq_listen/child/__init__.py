"""What runs inside the process of a task. Imports only the standard library and `protocol/`."""
