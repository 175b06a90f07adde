"""What processes say to one another, to the byte."""
