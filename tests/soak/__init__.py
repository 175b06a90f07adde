"""A server with a home that works for days by its calendar, and for minutes by ours: see `__main__.py`."""
