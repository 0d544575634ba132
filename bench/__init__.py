"""`make bench`: what the gateway does, as a share of what this machine's Postgres can do.

Every figure is a ratio within one run, from rounds that take turns: docs/performance.md.
"""
