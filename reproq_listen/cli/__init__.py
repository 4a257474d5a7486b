"""What people type: the command line, one module a command, and how answers are printed."""
