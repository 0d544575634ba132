-- Which orders were paid by payments whose rows are gone.
CREATE UNIQUE INDEX CONCURRENTLY payment_keys_paid_order ON payment_keys (merchant, order_id)
    WHERE order_id IS NOT NULL AND status = 'COMPLETED';
