-- What ended without reaching its endpoint is counted and listed without reading the others.
CREATE INDEX CONCURRENTLY deliveries_undelivered ON deliveries (state, id)
    WHERE state IN ('EXHAUSTED', 'GONE');
