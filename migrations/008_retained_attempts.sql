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
