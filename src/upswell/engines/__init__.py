"""Implementations of the engine seam: how containers are started and ended."""
