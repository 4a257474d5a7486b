"""Cron expressions, and the beat that enqueues the tasks of schedules."""
