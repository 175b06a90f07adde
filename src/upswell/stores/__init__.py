"""Implementations of the store seam: where inputs and outputs are kept."""
