"""What clients rely on: the table of calls, and the document that describes them."""
