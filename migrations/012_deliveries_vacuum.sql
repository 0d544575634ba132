-- As for transactions (010): what waited must not stay in the indexes of what waits.
ALTER TABLE deliveries SET (autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_insert_scale_factor = 0.01, autovacuum_analyze_scale_factor = 0.01);
