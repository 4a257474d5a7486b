"""The schema comes with `manage.py migrate`."""
