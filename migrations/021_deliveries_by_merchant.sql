-- Each merchant's webhooks that are due, the oldest first: the backlog of one hides no other's. The condition is another
-- than that of deliveries_due, though it means the same, so that the planner never takes the one for the other.
CREATE INDEX CONCURRENTLY deliveries_of_merchant_due ON deliveries (merchant, next_attempt_at)
    WHERE next_attempt_at IS NOT NULL;
