"""Embedded Postgres and Redis, and child processes: for tests, demo and benchmarks."""
