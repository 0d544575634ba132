-- As 028, for the callbacks of a payment that is removed.
CREATE INDEX CONCURRENTLY conflicts_of_callback ON conflicts (callback_id)
    WHERE callback_id IS NOT NULL;
