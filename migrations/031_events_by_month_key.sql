-- `transaction_events` becomes partitioned by month (031 to 035, docs/decisions/0029), and keys of
-- a partitioned table begin with what it is partitioned by.
CREATE UNIQUE INDEX CONCURRENTLY transaction_events_by_month ON transaction_events (transaction_id, id);
