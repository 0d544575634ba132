"""The whole system on one machine with nothing installed: what `make demo` and the tests start."""
