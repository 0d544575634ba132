-- The wall of orders: of one order at most one attempt that is paid, or may still be. A payment whose
-- outcome is unknown is PENDING, so it keeps its order shut.
CREATE UNIQUE INDEX CONCURRENTLY transactions_open_order ON transactions (merchant, order_id)
    WHERE order_id IS NOT NULL AND status <> 'FAILED';
