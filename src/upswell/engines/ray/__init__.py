"""The engine that starts containers on the nodes of a Ray cluster. Only `driver.py` imports Ray."""
