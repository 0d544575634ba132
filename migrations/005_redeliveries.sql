-- Bulk redelivery. It only adds, so the release before runs on it too.

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
