-- The merchant's own order that a payment is for, and what it wants to see again. Neither changes.
ALTER TABLE transactions
    ADD COLUMN order_id TEXT,
    ADD COLUMN custom_data JSONB;
ALTER TABLE transactions
    ADD CONSTRAINT order_id_length CHECK (length(order_id) BETWEEN 1 AND 64) NOT VALID;

CREATE OR REPLACE FUNCTION guard_transaction() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.status <> 'PENDING' AND (NEW.status, NEW.finished_at, NEW.settled_by, NEW.result_code)
            IS DISTINCT FROM (OLD.status, OLD.finished_at, OLD.settled_by, OLD.result_code) THEN
        RAISE EXCEPTION 'transaction % is final: % cannot become %',
            OLD.internal_transaction_id, OLD.status, NEW.status;
    END IF;
    IF (NEW.internal_transaction_id, split_part(NEW.merchant, '#', 1), NEW.idempotency_key,
            NEW.amount, NEW.phone, NEW.created_at, NEW.order_id, NEW.custom_data)
            IS DISTINCT FROM (OLD.internal_transaction_id, split_part(OLD.merchant, '#', 1),
            OLD.idempotency_key, OLD.amount, OLD.phone, OLD.created_at, OLD.order_id,
            OLD.custom_data) THEN
        RAISE EXCEPTION 'transaction %: what was asked for cannot change',
            OLD.internal_transaction_id;
    END IF;
    IF OLD.receipt IS NOT NULL AND NEW.receipt IS DISTINCT FROM OLD.receipt THEN
        RAISE EXCEPTION 'transaction %: its receipt cannot change', OLD.internal_transaction_id;
    END IF;
    IF OLD.checkout_request_id IS NOT NULL
            AND NEW.checkout_request_id IS DISTINCT FROM OLD.checkout_request_id THEN
        RAISE EXCEPTION 'transaction %: its checkout request id cannot change',
            OLD.internal_transaction_id;
    END IF;
    RETURN NEW;
END $$;
