-- What a process remembered and the database had lost, and what became of it.
CREATE TABLE lost_rows (
    id            BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind          TEXT NOT NULL CHECK (kind IN ('payment', 'outcome', 'callback', 'webhook')),
    -- The payment's public id; a callback on the plain path names none.
    payment       UUID,
    -- What tells it apart: a body's digest, a webhook's id.
    about         TEXT NOT NULL DEFAULT '',
    written_again BOOLEAN NOT NULL,
    noticed_at    TIMESTAMPTZ NOT NULL,
    UNIQUE (kind, payment, about)
);
