"""Sockets of protocols without HTTP and tokens: Graphite's and StatsD's. Off unless the settings name them."""
