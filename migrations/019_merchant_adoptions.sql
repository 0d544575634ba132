-- Who handed a history over to the next owner of its name (`merchants adopt`), and why. Append-only.
CREATE TABLE merchant_adoptions (
    id       BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    merchant TEXT NOT NULL,
    from_uid TEXT NOT NULL,
    to_uid   TEXT NOT NULL,
    by       TEXT NOT NULL CHECK (length(by) BETWEEN 1 AND 200),
    reason   TEXT NOT NULL CHECK (length(reason) BETWEEN 1 AND 2000),
    at       TIMESTAMPTZ NOT NULL
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON merchant_adoptions
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
