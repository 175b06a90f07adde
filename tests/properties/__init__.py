"""The laws of the core under any history."""
