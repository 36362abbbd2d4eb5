"""The command line: a thin edge that starts the service and the maintenance of its file."""
