"""The worker process: consumes the queue, sweeps, and dispatches units of work."""
