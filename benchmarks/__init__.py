"""upswell beside what people would pick instead, measured in turn in one run: `make bench`."""
