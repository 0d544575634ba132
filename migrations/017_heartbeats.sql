-- One small row of each process, written every few seconds: whether Postgres takes writes now.
-- Rows of processes that are gone are deleted by those that live.
CREATE TABLE heartbeats (
    process TEXT PRIMARY KEY,
    beat_at TIMESTAMPTZ NOT NULL
);
