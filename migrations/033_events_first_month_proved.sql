-- Reads the table beside readers and writers.
ALTER TABLE transaction_events VALIDATE CONSTRAINT transaction_events_first;
