"""Postgres, and the only importer of psycopg: one function, one statement, SQL inline.

The caller passes the connection and owns the database transaction.
"""
