-- The walls between `transactions` and `payment_keys`. Each looks after the row was written: who
-- waited for the row that was being removed finds its key, because a statement of a trigger sees
-- what was committed meanwhile.
CREATE FUNCTION refuse_known_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM payment_keys
                WHERE merchant = NEW.merchant AND idempotency_key = NEW.idempotency_key) THEN
        RAISE EXCEPTION 'the idempotency key % made a payment before', NEW.idempotency_key
            USING ERRCODE = 'unique_violation', CONSTRAINT = 'payment_keys_pkey';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER refuse_known_key AFTER INSERT ON transactions
    FOR EACH ROW EXECUTE FUNCTION refuse_known_key();

CREATE FUNCTION refuse_known_receipt() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM payment_keys WHERE receipt = NEW.receipt) THEN
        RAISE EXCEPTION 'the receipt % is of another payment', NEW.receipt
            USING ERRCODE = 'unique_violation', CONSTRAINT = 'payment_keys_receipt_key';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER refuse_known_receipt AFTER INSERT OR UPDATE OF receipt ON transactions
    FOR EACH ROW WHEN (NEW.receipt IS NOT NULL) EXECUTE FUNCTION refuse_known_receipt();

-- No payment goes before its key is kept.
CREATE FUNCTION refuse_to_forget() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM payment_keys
                    WHERE internal_transaction_id = OLD.internal_transaction_id
                      AND merchant = OLD.merchant AND idempotency_key = OLD.idempotency_key
                      AND receipt IS NOT DISTINCT FROM OLD.receipt
                      AND status = OLD.status) THEN
        RAISE EXCEPTION 'payment % cannot be removed: its key is not kept',
            OLD.internal_transaction_id;
    END IF;
    RETURN OLD;
END $$;
CREATE TRIGGER refuse_to_forget BEFORE DELETE ON transactions
    FOR EACH ROW EXECUTE FUNCTION refuse_to_forget();
