"""What crosses the process boundary: constants, encodings and checks that the worker and the task's process share."""
