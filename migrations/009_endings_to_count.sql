-- Ends that a person decided, by a command that nobody scrapes: a worker takes each row out and
-- counts it, so that the counters say of every payment what the table says.
CREATE TABLE endings_to_count (
    transaction_id BIGINT PRIMARY KEY REFERENCES transactions (id)
);
