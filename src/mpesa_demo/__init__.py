"""The whole system on one machine with nothing installed: `make demo` and `make dev`."""
