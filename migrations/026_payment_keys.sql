-- What stays of a payment after its rows were removed with their month: its key, so that the same
-- key is answered and never pushed again, and its receipt, so that the same money is never counted
-- twice. A key is written before the payment's rows go, and stays for good.
CREATE TABLE payment_keys (
    merchant                TEXT NOT NULL,
    idempotency_key         UUID NOT NULL,
    internal_transaction_id UUID NOT NULL UNIQUE,
    request_sha256          BYTEA NOT NULL CHECK (octet_length(request_sha256) = 32),
    response_status         SMALLINT,
    response_body           TEXT,
    status                  TEXT NOT NULL CHECK (status IN ('COMPLETED', 'FAILED')),
    amount                  NUMERIC(20, 2) NOT NULL,
    receipt                 TEXT UNIQUE,
    finished_at             TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (merchant, idempotency_key),
    CHECK ((response_status IS NULL) = (response_body IS NULL)),
    CHECK (receipt IS NULL OR status = 'COMPLETED')
);

-- A key may move to another owner of the same name, as its payment may; nothing else changes.
CREATE FUNCTION guard_payment_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR (split_part(NEW.merchant, '#', 1), NEW.idempotency_key,
            NEW.internal_transaction_id, NEW.request_sha256, NEW.response_status, NEW.response_body,
            NEW.status, NEW.amount, NEW.receipt, NEW.finished_at)
            IS DISTINCT FROM (split_part(OLD.merchant, '#', 1), OLD.idempotency_key,
            OLD.internal_transaction_id, OLD.request_sha256, OLD.response_status, OLD.response_body,
            OLD.status, OLD.amount, OLD.receipt, OLD.finished_at) THEN
        RAISE EXCEPTION 'the key of payment % stays as it is', OLD.internal_transaction_id;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER guard_payment_key BEFORE UPDATE OR DELETE ON payment_keys
    FOR EACH ROW EXECUTE FUNCTION guard_payment_key();

-- Which month's rows an operator removed. `payments` counts while it goes on.
CREATE TABLE removed_months (
    month       TEXT PRIMARY KEY,
    removed_by  TEXT NOT NULL CHECK (length(removed_by) BETWEEN 1 AND 200),
    reason      TEXT NOT NULL CHECK (length(reason) BETWEEN 1 AND 2000),
    started_at  TIMESTAMPTZ NOT NULL,
    finished_at TIMESTAMPTZ,
    payments    BIGINT NOT NULL DEFAULT 0
);
