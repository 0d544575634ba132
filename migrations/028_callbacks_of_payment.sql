-- Every callback of a payment, on whichever path: without it each payment that is removed would
-- read the whole inbox to know that no callback names it.
CREATE INDEX CONCURRENTLY callbacks_of_payment ON callbacks (transaction_id)
    WHERE transaction_id IS NOT NULL;
