"""Callbacks: from the socket to a committed row, and the answer."""
