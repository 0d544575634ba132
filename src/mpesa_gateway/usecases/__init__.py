"""The order of I/O: what is committed before what leaves. Opens the database transactions.

Nothing here enqueues: what is to be done next is returned, and the caller wakes a worker after the
commit.
"""
