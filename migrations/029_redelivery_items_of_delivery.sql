-- As 028, for the webhooks of a payment that is removed.
CREATE INDEX CONCURRENTLY redelivery_items_of_delivery ON redelivery_items (delivery_id);
