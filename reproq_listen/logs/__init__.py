"""Structured log lines: a closed list of events, redacted, written without blocking."""
