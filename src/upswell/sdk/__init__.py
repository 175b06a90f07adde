"""What user code imports: apps, functions, calls, and the client of the server."""
