-- Where a payment stands in its trace (W3C `traceparent`), so that one trace goes on in whichever
-- process does the next step, although Redis lost the message. Empty while tracing is off.
-- Nullable and without a default: no table is rewritten, and the release before runs on it too.
ALTER TABLE callbacks ADD COLUMN traceparent TEXT;
-- NOT VALID: rows that were there before have none, so that nothing needs to be read under the lock.
ALTER TABLE callbacks ADD CONSTRAINT callbacks_traceparent
    CHECK (length(traceparent) = 55) NOT VALID;
