-- The table that was there becomes the first partition of a new one of its name, in one moment:
-- nothing is read and nothing is written but the catalogue. A month is a range of ten thousand
-- million ids of `transactions` (store/months.py), so all events of a payment are in one partition.
ALTER TABLE transaction_events RENAME TO transaction_events_first;
ALTER TABLE transaction_events_first ALTER COLUMN id DROP IDENTITY;
DROP TRIGGER append_only ON transaction_events_first;
ALTER TABLE transaction_events_first DROP CONSTRAINT transaction_events_pkey;
ALTER TABLE transaction_events_first ADD CONSTRAINT transaction_events_first_pkey
    PRIMARY KEY USING INDEX transaction_events_by_month;
-- The key says the same.
DROP INDEX transaction_events_of_transaction;

CREATE TABLE transaction_events (
    id             BIGINT GENERATED ALWAYS AS IDENTITY,
    transaction_id BIGINT NOT NULL,
    at             TIMESTAMPTZ NOT NULL,
    source         TEXT NOT NULL
                   CONSTRAINT transaction_events_source_check
                   CHECK (source IN ('caller', 'push', 'callback', 'query', 'gateway', 'person')),
    kind           TEXT NOT NULL,
    detail         JSONB NOT NULL DEFAULT '{}',
    PRIMARY KEY (transaction_id, id)
) PARTITION BY RANGE (transaction_id);
ALTER TABLE transaction_events ATTACH PARTITION transaction_events_first
    FOR VALUES FROM (MINVALUE) TO (10000000000);
ALTER TABLE transaction_events ATTACH PARTITION transaction_events_default DEFAULT;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON transaction_events
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
SELECT setval(pg_get_serial_sequence('transaction_events', 'id'), coalesce(max(id), 0) + 1, false)
  FROM transaction_events;
