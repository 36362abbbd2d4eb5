"""Tests against real server processes over sockets."""
