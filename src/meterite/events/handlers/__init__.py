"""The handlers that come with Meterite, a module a kind; they are found as any plug-in's are."""
