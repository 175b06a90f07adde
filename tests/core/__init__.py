"""The rules of the core one by one, as tables."""
