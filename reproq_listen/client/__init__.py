"""What Python programs enqueue with: the decorator, clients, results. Imported on use (`reproq_listen/__init__.py`)."""
