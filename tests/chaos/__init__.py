"""A server that keeps apps, under load, while everything around it is killed: see `__main__.py`."""
