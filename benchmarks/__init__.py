"""What `make bench` measures; docs/performance.md has the table and how to read it."""
