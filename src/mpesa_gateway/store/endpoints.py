"""Table `failing_endpoints`: what fails, how often in a row, and until when it is left alone."""

from __future__ import annotations

from datetime import datetime

from mpesa_gateway.store.pool import Connection


def list_parked_merchants(conn: Connection) -> list[str]:
    """Whose endpoints have failed so often that they are left alone, or just being tried."""
    cursor = conn.execute(
        """
        SELECT DISTINCT merchant
          FROM failing_endpoints
         WHERE parked_until IS NOT NULL
        """
    )
    return [row[0] for row in cursor]


def take_probe(
    conn: Connection, merchant: str, origin: str, *, until: datetime, now: datetime
) -> bool:
    """Be the one try of an endpoint whose pause is over; others wait until it has ended.

    False when the endpoint is not a parked one whose pause is over.
    """
    cursor = conn.execute(
        """
        UPDATE failing_endpoints
           SET parked_until = %(until)s
         WHERE merchant = %(merchant)s
           AND origin = %(origin)s
           AND parked_until <= %(now)s
        """,
        {"until": until, "merchant": merchant, "origin": origin, "now": now},
    )
    return cursor.rowcount == 1


def probe_now(conn: Connection, merchant: str, now: datetime) -> None:
    """End the pause of a merchant's parked endpoints, on a person's word: one try may feel now."""
    conn.execute(
        """
        UPDATE failing_endpoints
           SET parked_until = %(now)s
         WHERE merchant = %(merchant)s
           AND parked_until > %(now)s
        """,
        {"now": now, "merchant": merchant},
    )


def count_failure(conn: Connection, merchant: str, origin: str, now: datetime) -> int:
    """One more failure in a row; how many there are."""
    cursor = conn.execute(
        """
        INSERT INTO failing_endpoints (merchant, origin, failures_in_row, failing_since)
        VALUES (%(merchant)s, %(origin)s, 1, %(now)s)
            ON CONFLICT (merchant, origin) DO UPDATE
           SET failures_in_row = failing_endpoints.failures_in_row + 1
        RETURNING failures_in_row
        """,
        {"merchant": merchant, "origin": origin, "now": now},
    )
    row = cursor.fetchone()
    assert row is not None
    failures: int = row[0]
    return failures


def park(conn: Connection, merchant: str, origin: str, until: datetime) -> None:
    """Leave the endpoint alone until then."""
    conn.execute(
        """
        UPDATE failing_endpoints
           SET parked_until = %(until)s
         WHERE merchant = %(merchant)s
           AND origin = %(origin)s
        """,
        {"until": until, "merchant": merchant, "origin": origin},
    )


def forgive(conn: Connection, merchant: str, origin: str) -> bool:
    """The endpoint answered: nothing is held against it. True when something was."""
    cursor = conn.execute(
        """
        DELETE FROM failing_endpoints
         WHERE merchant = %(merchant)s
           AND origin = %(origin)s
        """,
        {"merchant": merchant, "origin": origin},
    )
    return cursor.rowcount == 1
