-- A callback whose token is ours (it carries a MAC) although its payment is not in this database:
-- the payment's public id. It is in quarantine with the outcome `orphan` until the payment appears.
ALTER TABLE callbacks ADD COLUMN orphan_of UUID;
