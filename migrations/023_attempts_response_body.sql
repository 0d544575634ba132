-- The beginning of what an endpoint answered: 2,048 bytes at most, cut by the gateway.
ALTER TABLE webhook_attempts ADD COLUMN response_body TEXT;
