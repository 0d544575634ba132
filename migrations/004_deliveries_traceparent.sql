-- As 002. A file of its own, because a migration locks one table that others write to.
ALTER TABLE deliveries ADD COLUMN traceparent TEXT;
ALTER TABLE deliveries ADD CONSTRAINT deliveries_traceparent
    CHECK (length(traceparent) = 55) NOT VALID;
