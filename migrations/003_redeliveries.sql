-- Bulk redelivery and retention. It only adds, so the release before runs on it too.

-- A person's order to send a merchant's webhooks again: any worker works it off in batches.
CREATE TABLE redeliveries (
    id           BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    merchant     TEXT NOT NULL,
    since        TIMESTAMPTZ NOT NULL,
    until        TIMESTAMPTZ NOT NULL,
    states       TEXT[] NOT NULL CHECK (cardinality(states) > 0
                 AND states <@ ARRAY['PENDING', 'DELIVERED', 'EXHAUSTED', 'GONE']),
    requested_by TEXT,
    requested_at TIMESTAMPTZ NOT NULL,
    -- The deliveries of the period in the order of their ids: after `first_id`, up to `last_id`;
    -- those up to `position` have been looked at.
    first_id     BIGINT NOT NULL,
    position     BIGINT NOT NULL,
    last_id      BIGINT NOT NULL,
    chosen       BIGINT NOT NULL DEFAULT 0,
    next_at      TIMESTAMPTZ,
    finished_at  TIMESTAMPTZ,
    CHECK (since <= until),
    CHECK (first_id <= position),
    CHECK ((next_at IS NULL) = (finished_at IS NOT NULL))
);
CREATE INDEX redeliveries_open ON redeliveries (next_at) WHERE next_at IS NOT NULL;

-- Which deliveries an order chose, so that what became of each can be told.
CREATE TABLE redelivery_items (
    redelivery_id BIGINT NOT NULL REFERENCES redeliveries (id),
    delivery_id   BIGINT NOT NULL REFERENCES deliveries (id),
    PRIMARY KEY (redelivery_id, delivery_id)
);

-- What ended without reaching its endpoint is counted and listed without reading the others.
CREATE INDEX deliveries_undelivered ON deliveries (state, id) WHERE state IN ('EXHAUSTED', 'GONE');

-- Retention: how far the pass over a table has come. One worker at a time holds the row.
CREATE TABLE retention_passes (
    name     TEXT PRIMARY KEY,
    position BIGINT NOT NULL DEFAULT 0,
    removed  BIGINT NOT NULL DEFAULT 0,
    next_at  TIMESTAMPTZ NOT NULL
);

-- A body that retention removed is empty, and its digest still recognises a copy. Anything else
-- that touches a body is refused: what was answered 200 stays byte for byte.
ALTER TABLE callbacks ADD COLUMN body_removed_at TIMESTAMPTZ;
CREATE FUNCTION guard_callback_body() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.body_sha256 IS DISTINCT FROM OLD.body_sha256
            OR (NEW.body IS DISTINCT FROM OLD.body AND (octet_length(NEW.body) > 0
                OR NEW.body_removed_at IS NULL OR OLD.state <> 'APPLIED')) THEN
        RAISE EXCEPTION 'callback %: its body cannot change', OLD.id;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER guard_callback_body BEFORE UPDATE OF body, body_sha256 ON callbacks
    FOR EACH ROW EXECUTE FUNCTION guard_callback_body();

-- An attempt is removed only once its delivery has ended.
CREATE FUNCTION guard_attempt() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM deliveries WHERE id = OLD.delivery_id AND state = 'PENDING') THEN
        RAISE EXCEPTION 'attempt % is of a delivery that has not ended', OLD.id;
    END IF;
    RETURN OLD;
END $$;
CREATE TRIGGER guard_attempt BEFORE DELETE ON webhook_attempts
    FOR EACH ROW EXECUTE FUNCTION guard_attempt();
