-- As 002. A file of its own, because a migration locks one table that others write to.
ALTER TABLE transactions ADD COLUMN traceparent TEXT;
ALTER TABLE transactions ADD CONSTRAINT transactions_traceparent
    CHECK (length(traceparent) = 55) NOT VALID;
