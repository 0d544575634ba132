-- The partial indexes of what waits keep an entry for all that waited since the last vacuum. By
-- default that is after a fifth of the table has changed: two million entries at ten million rows,
-- through which each sweep goes. Readers and writers do not wait for these settings.
ALTER TABLE transactions SET (autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_insert_scale_factor = 0.01, autovacuum_analyze_scale_factor = 0.01);
-- Without it the newest rows are in no summary until a vacuum, and each look at the last hour reads
-- all of them.
ALTER INDEX transactions_created SET (autosummarize = on);
