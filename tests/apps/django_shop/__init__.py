"""A Django project that uses our backend. Its tests run with `manage.py test`."""
