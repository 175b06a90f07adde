"""Apps that the measures of a server with a home deploy."""
