-- Takes what no month takes, which the gateway never writes. Each partition has its foreign key
-- itself: one of the whole table would lock `transactions` whenever a partition comes or goes.
CREATE TABLE transaction_events_default (
    id             BIGINT NOT NULL,
    transaction_id BIGINT NOT NULL REFERENCES transactions (id),
    at             TIMESTAMPTZ NOT NULL,
    source         TEXT NOT NULL
                   CONSTRAINT transaction_events_source_check
                   CHECK (source IN ('caller', 'push', 'callback', 'query', 'gateway', 'person')),
    kind           TEXT NOT NULL,
    detail         JSONB NOT NULL DEFAULT '{}',
    PRIMARY KEY (transaction_id, id)
);
