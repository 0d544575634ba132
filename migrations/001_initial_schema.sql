-- The whole truth of the gateway. Each invariant that the code keeps is repeated here as a
-- constraint, so that no bug and no person can break it unnoticed. PostgreSQL 14 or later.

-- One payment. PENDING -> COMPLETED or PENDING -> FAILED, nothing else, ever.
CREATE TABLE transactions (
    id                      BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- The id that merchants know: UUIDv7, time-ordered, so that its index grows at one end.
    internal_transaction_id UUID NOT NULL UNIQUE,
    merchant                TEXT NOT NULL CHECK (length(merchant) BETWEEN 1 AND 320),
    idempotency_key         UUID NOT NULL,
    request_sha256          BYTEA NOT NULL CHECK (octet_length(request_sha256) = 32),
    status                  TEXT NOT NULL DEFAULT 'PENDING'
                            CHECK (status IN ('PENDING', 'COMPLETED', 'FAILED')),
    -- Kenyan shillings; Safaricom takes whole ones only.
    amount                  NUMERIC(20, 2) NOT NULL CHECK (amount > 0 AND amount = trunc(amount)),
    phone                   TEXT NOT NULL CHECK (phone ~ '^254[0-9]{9}$'),
    short_code              TEXT NOT NULL,
    webhook_url             TEXT NOT NULL,
    account_reference       TEXT NOT NULL,
    description             TEXT NOT NULL,

    -- The push. INTENT: certainly not sent. SENDING: it may have left. The lease is the time by
    -- which the process that pushes has ended it; after that the sweeper does.
    push_state              TEXT NOT NULL CHECK (push_state IN
                            ('INTENT', 'SENDING', 'ACCEPTED', 'REFUSED', 'NOT_SENT', 'UNKNOWN')),
    push_lease_until        TIMESTAMPTZ,
    prompt_until            TIMESTAMPTZ NOT NULL,
    -- The callback URL carries the secret; only its digest is kept.
    callback_secret_sha256  BYTEA NOT NULL CHECK (octet_length(callback_secret_sha256) = 32),
    checkout_request_id     TEXT UNIQUE CHECK (length(checkout_request_id) <= 128),
    merchant_request_id     TEXT CHECK (length(merchant_request_id) <= 128),
    -- What POST /initiate answered, for every later request with the same key.
    response_status         SMALLINT,
    response_body           TEXT,

    -- Asking Safaricom (STK query). A claim number fences off a worker that was too slow.
    next_query_at           TIMESTAMPTZ,
    queries_made            INTEGER NOT NULL DEFAULT 0,
    query_claim             INTEGER NOT NULL DEFAULT 0,
    query_lease_until       TIMESTAMPTZ,
    -- A failure that one query reported; believed when a later one says the same.
    provisional_code        TEXT,

    -- The end.
    receipt                 TEXT UNIQUE CHECK (length(receipt) BETWEEN 1 AND 32),
    metadata                JSONB,
    result_code             TEXT,
    result_desc             TEXT,
    failure_reason          TEXT,
    settled_by              TEXT CHECK (settled_by IN ('callback', 'query', 'push', 'person')),
    attention               TEXT,
    -- Safaricom said what a query could not put right (another amount, a taken receipt): nobody
    -- asks, and no query settles.
    in_doubt                BOOLEAN NOT NULL DEFAULT FALSE,

    created_at              TIMESTAMPTZ NOT NULL,
    updated_at              TIMESTAMPTZ NOT NULL,
    finished_at             TIMESTAMPTZ,

    UNIQUE (merchant, idempotency_key),
    CHECK ((status = 'PENDING') = (finished_at IS NULL)),
    CHECK ((status = 'PENDING') = (settled_by IS NULL)),
    CHECK ((status = 'FAILED') = (failure_reason IS NOT NULL)),
    CHECK (receipt IS NULL OR status = 'COMPLETED'),
    CHECK (next_query_at IS NULL OR (status = 'PENDING' AND NOT in_doubt)),
    CHECK ((response_status IS NULL) = (response_body IS NULL)),
    -- What a push that never left cannot be: paid for.
    CHECK (status <> 'COMPLETED' OR push_state NOT IN ('INTENT', 'NOT_SENT', 'REFUSED'))
);
CREATE INDEX transactions_of_merchant ON transactions (merchant, id DESC);
CREATE INDEX transactions_of_phone ON transactions (phone, id DESC);
CREATE INDEX transactions_created ON transactions USING brin (created_at);
CREATE INDEX transactions_open_prompt ON transactions (short_code, phone) WHERE status = 'PENDING';
CREATE INDEX transactions_to_query ON transactions (next_query_at) WHERE next_query_at IS NOT NULL;
CREATE INDEX transactions_pushing ON transactions (push_lease_until)
    WHERE push_lease_until IS NOT NULL;
CREATE INDEX transactions_pending ON transactions (created_at) WHERE status = 'PENDING';

-- The third wall: what is final stays as it is, and what was asked for is never rewritten.
CREATE FUNCTION guard_transaction() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.status <> 'PENDING' AND (NEW.status, NEW.finished_at, NEW.settled_by, NEW.result_code)
            IS DISTINCT FROM (OLD.status, OLD.finished_at, OLD.settled_by, OLD.result_code) THEN
        RAISE EXCEPTION 'transaction % is final: % cannot become %',
            OLD.internal_transaction_id, OLD.status, NEW.status;
    END IF;
    IF (NEW.internal_transaction_id, NEW.merchant, NEW.idempotency_key, NEW.amount, NEW.phone,
            NEW.created_at)
            IS DISTINCT FROM (OLD.internal_transaction_id, OLD.merchant, OLD.idempotency_key,
            OLD.amount, OLD.phone, OLD.created_at) THEN
        RAISE EXCEPTION 'transaction %: what was asked for cannot change',
            OLD.internal_transaction_id;
    END IF;
    IF OLD.receipt IS NOT NULL AND NEW.receipt IS DISTINCT FROM OLD.receipt THEN
        RAISE EXCEPTION 'transaction %: its receipt cannot change', OLD.internal_transaction_id;
    END IF;
    IF OLD.checkout_request_id IS NOT NULL
            AND NEW.checkout_request_id IS DISTINCT FROM OLD.checkout_request_id THEN
        RAISE EXCEPTION 'transaction %: its checkout request id cannot change',
            OLD.internal_transaction_id;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER guard_transaction BEFORE UPDATE ON transactions
    FOR EACH ROW EXECUTE FUNCTION guard_transaction();

-- Every step of a transaction and who said it. Append-only.
CREATE TABLE transaction_events (
    id             BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    transaction_id BIGINT NOT NULL REFERENCES transactions (id),
    at             TIMESTAMPTZ NOT NULL,
    source         TEXT NOT NULL
                   CHECK (source IN ('caller', 'push', 'callback', 'query', 'gateway', 'person')),
    kind           TEXT NOT NULL,
    detail         JSONB NOT NULL DEFAULT '{}'
);
CREATE INDEX transaction_events_of_transaction ON transaction_events (transaction_id, id);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME;
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON transaction_events
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- The inbox: every callback that was answered 200, byte for byte.
CREATE TABLE callbacks (
    id                  BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Named by the token in the path; on the plain path, found by its CheckoutRequestID later.
    transaction_id      BIGINT REFERENCES transactions (id),
    by_token            BOOLEAN NOT NULL,
    body                BYTEA NOT NULL,
    body_sha256         BYTEA NOT NULL CHECK (octet_length(body_sha256) = 32),
    headers             JSONB NOT NULL DEFAULT '{}',
    source              INET,
    received_at         TIMESTAMPTZ NOT NULL,
    -- Equal bodies with one token are one row: how often, and when last.
    copies              INTEGER NOT NULL DEFAULT 1 CHECK (copies > 0),
    last_received_at    TIMESTAMPTZ NOT NULL,
    state               TEXT NOT NULL DEFAULT 'RECEIVED'
                        CHECK (state IN ('RECEIVED', 'HELD', 'APPLIED', 'QUARANTINED')),
    -- What applying it did, or why it is in quarantine.
    outcome             TEXT,
    checkout_request_id TEXT,
    attempts            INTEGER NOT NULL DEFAULT 0,
    next_attempt_at     TIMESTAMPTZ NOT NULL,
    applied_at          TIMESTAMPTZ,
    -- A person who looked at it and let it settle although its path or source may not.
    requeued_by         TEXT,
    CHECK (NOT by_token OR transaction_id IS NOT NULL),
    CHECK ((state = 'RECEIVED') = (outcome IS NULL)),
    CHECK ((state = 'RECEIVED') = (applied_at IS NULL))
);
-- The transaction first: its ids ascend, a random digest alone would scatter over the index.
CREATE UNIQUE INDEX callbacks_by_token ON callbacks (transaction_id, body_sha256) WHERE by_token;
CREATE INDEX callbacks_of_transaction ON callbacks (transaction_id)
    WHERE NOT by_token AND transaction_id IS NOT NULL;
CREATE INDEX callbacks_to_apply ON callbacks (next_attempt_at) WHERE state = 'RECEIVED';
CREATE INDEX callbacks_unapplied ON callbacks (received_at) WHERE state = 'RECEIVED';
CREATE INDEX callbacks_quarantined ON callbacks (received_at) WHERE state = 'QUARANTINED';
CREATE INDEX callbacks_unmatched ON callbacks (checkout_request_id)
    WHERE state = 'QUARANTINED' AND outcome = 'unmatched';

-- A truth that contradicts a final state. It moves no state; a person closes it.
CREATE TABLE conflicts (
    id             BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    transaction_id BIGINT NOT NULL REFERENCES transactions (id),
    callback_id    BIGINT REFERENCES callbacks (id),
    kind           TEXT NOT NULL,
    receipt        TEXT,
    result_code    TEXT,
    opened_at      TIMESTAMPTZ NOT NULL,
    closed_at      TIMESTAMPTZ,
    closed_by      TEXT,
    closing_note   TEXT,
    CHECK ((closed_at IS NULL) = (closed_by IS NULL)),
    CHECK ((closed_at IS NULL) = (closing_note IS NULL))
);
-- The same contradiction said twice is one.
CREATE UNIQUE INDEX conflicts_once ON conflicts (transaction_id, kind, coalesce(receipt, ''));
CREATE INDEX conflicts_open ON conflicts (opened_at) WHERE closed_at IS NULL;

-- The outbox: one webhook to one endpoint. Written in the transaction that ends the payment.
CREATE TABLE deliveries (
    id              BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    webhook_id      TEXT NOT NULL UNIQUE,
    transaction_id  BIGINT NOT NULL REFERENCES transactions (id),
    conflict_id     BIGINT UNIQUE REFERENCES conflicts (id),
    merchant        TEXT NOT NULL,
    type            TEXT NOT NULL CHECK (type IN ('transaction.completed', 'transaction.failed',
                    'transaction.updated', 'transaction.conflict')),
    url             TEXT NOT NULL,
    -- Scheme, host and port: what is parked when it keeps failing.
    origin          TEXT NOT NULL,
    -- Frozen: equal in every attempt.
    body            BYTEA NOT NULL,
    state           TEXT NOT NULL DEFAULT 'PENDING'
                    CHECK (state IN ('PENDING', 'DELIVERED', 'EXHAUSTED', 'GONE')),
    attempts_made   INTEGER NOT NULL DEFAULT 0,
    -- Failed tries of this round; a redelivery starts a new round.
    failures        INTEGER NOT NULL DEFAULT 0,
    next_attempt_at TIMESTAMPTZ,
    -- It waits because its endpoint is parked, not because of its own schedule.
    waits_for_endpoint BOOLEAN NOT NULL DEFAULT FALSE,
    claim           INTEGER NOT NULL DEFAULT 0,
    lease_until     TIMESTAMPTZ,
    created_at      TIMESTAMPTZ NOT NULL,
    finished_at     TIMESTAMPTZ,
    CHECK ((state = 'PENDING') = (next_attempt_at IS NOT NULL)),
    CHECK ((state = 'PENDING') = (finished_at IS NULL)),
    CHECK (state = 'PENDING' OR NOT waits_for_endpoint),
    CHECK ((type = 'transaction.conflict') = (conflict_id IS NOT NULL))
);
CREATE UNIQUE INDEX deliveries_one_end ON deliveries (transaction_id)
    WHERE type IN ('transaction.completed', 'transaction.failed');
CREATE UNIQUE INDEX deliveries_one_update ON deliveries (transaction_id)
    WHERE type = 'transaction.updated';
CREATE INDEX deliveries_of_transaction ON deliveries (transaction_id, id);
CREATE INDEX deliveries_due ON deliveries (next_attempt_at) WHERE state = 'PENDING';
CREATE INDEX deliveries_waiting ON deliveries (merchant, origin) WHERE waits_for_endpoint;

-- One HTTP try. The row is committed before the request leaves.
CREATE TABLE webhook_attempts (
    id                   BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    transaction_id       BIGINT NOT NULL REFERENCES transactions (id),
    delivery_id          BIGINT NOT NULL REFERENCES deliveries (id),
    attempt_number       INTEGER NOT NULL CHECK (attempt_number > 0),
    outcome              TEXT NOT NULL DEFAULT 'started' CHECK (outcome IN
                         ('started', 'delivered', 'failed', 'refused', 'unknown')),
    success              BOOLEAN NOT NULL DEFAULT FALSE,
    response_status_code INTEGER,
    response_time_ms     INTEGER,
    error_message        TEXT,
    attempted_at         TIMESTAMPTZ NOT NULL,
    UNIQUE (delivery_id, attempt_number),
    CHECK (success = (outcome = 'delivered'))
);
CREATE INDEX webhook_attempts_of_transaction ON webhook_attempts (transaction_id, attempt_number);

-- Endpoints that fail. No row: nothing known against it.
CREATE TABLE failing_endpoints (
    merchant        TEXT NOT NULL,
    origin          TEXT NOT NULL,
    failures_in_row INTEGER NOT NULL CHECK (failures_in_row > 0),
    failing_since   TIMESTAMPTZ NOT NULL,
    parked_until    TIMESTAMPTZ,
    PRIMARY KEY (merchant, origin)
);

-- Work that one process does for all, such as exporting ages: who, and until when.
CREATE TABLE elections (
    name   TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    until  TIMESTAMPTZ NOT NULL
);
