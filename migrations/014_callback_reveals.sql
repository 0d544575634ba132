-- Who looked at a callback with whole phone numbers (`callbacks show --reveal`). Append-only.
-- Without a foreign key: adding one would lock the inbox.
CREATE TABLE callback_reveals (
    id          BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    callback_id BIGINT NOT NULL,
    revealed_by TEXT NOT NULL CHECK (length(revealed_by) BETWEEN 1 AND 200),
    at          TIMESTAMPTZ NOT NULL
);
CREATE INDEX callback_reveals_of_callback ON callback_reveals (callback_id);
