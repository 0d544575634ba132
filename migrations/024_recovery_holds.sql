-- While one of these is not accepted, no payment starts: the database has lost what it had
-- acknowledged, or an operator is about to restore it. Each process that noticed writes its own.
CREATE TABLE recovery_holds (
    id              UUID PRIMARY KEY,
    opened_at       TIMESTAMPTZ NOT NULL,
    opened_by       TEXT NOT NULL,
    reason          TEXT NOT NULL,
    accepted_at     TIMESTAMPTZ,
    accepted_by     TEXT,
    accepted_reason TEXT,
    CHECK ((accepted_at IS NULL) = (accepted_by IS NULL)),
    CHECK ((accepted_at IS NULL) = (accepted_reason IS NULL))
);
CREATE INDEX recovery_holds_open ON recovery_holds (opened_at) WHERE accepted_at IS NULL;
