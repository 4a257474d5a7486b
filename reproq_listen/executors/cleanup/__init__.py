"""Ending what tasks leave running: guard process, tags in the environment, subreaper, control group."""
