-- Each merchant's payments whose status is to be queried, the oldest first.
CREATE INDEX CONCURRENTLY transactions_of_merchant_to_query ON transactions (merchant, next_query_at)
    WHERE next_query_at IS NOT NULL;
