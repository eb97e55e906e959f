"""Rooms stand on floors: a room imports only rooms below its own, and the slow libraries have their places."""
