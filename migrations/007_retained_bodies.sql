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
