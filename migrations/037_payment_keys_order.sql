-- An order stays paid after the rows of its payment were removed.
ALTER TABLE payment_keys ADD COLUMN order_id TEXT;
