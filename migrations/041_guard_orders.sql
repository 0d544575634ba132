-- The walls of 026 and 027, for orders too.
CREATE OR REPLACE FUNCTION guard_payment_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR (split_part(NEW.merchant, '#', 1), NEW.idempotency_key,
            NEW.internal_transaction_id, NEW.request_sha256, NEW.response_status, NEW.response_body,
            NEW.status, NEW.amount, NEW.receipt, NEW.finished_at, NEW.order_id)
            IS DISTINCT FROM (split_part(OLD.merchant, '#', 1), OLD.idempotency_key,
            OLD.internal_transaction_id, OLD.request_sha256, OLD.response_status, OLD.response_body,
            OLD.status, OLD.amount, OLD.receipt, OLD.finished_at, OLD.order_id) THEN
        RAISE EXCEPTION 'the key of payment % stays as it is', OLD.internal_transaction_id;
    END IF;
    RETURN NEW;
END $$;

CREATE OR REPLACE FUNCTION refuse_known_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM payment_keys
                WHERE merchant = NEW.merchant AND idempotency_key = NEW.idempotency_key) THEN
        RAISE EXCEPTION 'the idempotency key % made a payment before', NEW.idempotency_key
            USING ERRCODE = 'unique_violation', CONSTRAINT = 'payment_keys_pkey';
    END IF;
    IF NEW.order_id IS NOT NULL AND EXISTS (
            SELECT FROM payment_keys
             WHERE merchant = NEW.merchant AND order_id = NEW.order_id AND status = 'COMPLETED') THEN
        RAISE EXCEPTION 'the order of payment % was paid before', NEW.internal_transaction_id
            USING ERRCODE = 'unique_violation', CONSTRAINT = 'payment_keys_paid_order';
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION refuse_to_forget() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM payment_keys
                    WHERE internal_transaction_id = OLD.internal_transaction_id
                      AND merchant = OLD.merchant AND idempotency_key = OLD.idempotency_key
                      AND receipt IS NOT DISTINCT FROM OLD.receipt
                      AND order_id IS NOT DISTINCT FROM OLD.order_id
                      AND status = OLD.status) THEN
        RAISE EXCEPTION 'payment % cannot be removed: its key is not kept',
            OLD.internal_transaction_id;
    END IF;
    RETURN OLD;
END $$;
