-- All attempts of an order, the failed ones too. The order comes first: an operator knows no merchant.
CREATE INDEX CONCURRENTLY transactions_by_order ON transactions (order_id, merchant)
    WHERE order_id IS NOT NULL;
