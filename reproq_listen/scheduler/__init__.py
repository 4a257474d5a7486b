"""Cron expressions, and the beat that enqueues what schedules say."""
