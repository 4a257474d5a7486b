"""A Django project of ordinary size, to measure what its import costs: all of django.contrib, some models, a task."""
