-- Payments that are over, through the real schema; harness/history.py runs it.

-- Ended payments. Their ids are UUIDs of version 7, put together by hand: Postgres makes them itself
-- from 18 on.
INSERT INTO transactions (internal_transaction_id, merchant, idempotency_key, request_sha256,
status, amount, phone, short_code, webhook_url, account_reference, description, push_state,
prompt_until, callback_secret_sha256, checkout_request_id, merchant_request_id, response_status,
response_body, receipt, metadata, result_code, result_desc, settled_by, created_at, updated_at,
finished_at) SELECT (lpad(to_hex((extract(epoch FROM %(at)s::timestamptz) * 1000)::bigint), 12, '0')
|| '70008' || substr(md5(%(merchant)s || %(first)s), 1, 3) || lpad(to_hex(n), 12, '0'))::uuid,
%(merchant)s, gen_random_uuid(), sha256(n::text::bytea),
'COMPLETED', 10 + n %% 5000, '2547' || lpad((n %% 100000000)::text, 8, '0'), '174379', %(url)s,
'INV-' || (n %% 1000000), 'Payment', 'ACCEPTED', %(at)s::timestamptz + interval '90 s',
sha256(('token ' || n)::bytea), 'ws_CO_31012026' || lpad(n::text, 20, '0'), '29115-' ||
lpad(n::text, 8, '0') || '-1', 201, '{"transaction_id": "' || gen_random_uuid() || '", "status":
"PENDING"}', 'UAV' || lpad(n::text, 9, '0'), jsonb_build_object('Amount', 10 + n %% 5000,
'MpesaReceiptNumber', 'UAV' || lpad(n::text, 9, '0'), 'TransactionDate', 20260131120000,
'PhoneNumber', 254700000000 + n), '0', 'The service request is processed successfully.', 'callback',
%(at)s::timestamptz, %(at)s::timestamptz, %(at)s::timestamptz + interval '8 s' FROM
generate_series(%(first)s::bigint, %(last)s::bigint) n;

-- Who said what.
INSERT INTO transaction_events (transaction_id, at, source, kind, detail) SELECT id, created_at,
v.source, v.kind, v.detail::jsonb FROM transactions, LATERAL (VALUES ('caller', 'requested', '{}'),
('push', 'accepted', '{}'), ('callback', 'completed', jsonb_build_object('code', '0', 'receipt',
receipt)::text)) v (source, kind, detail) WHERE created_at = %(at)s::timestamptz ORDER BY id;

-- The callback of each, by token.
INSERT INTO callbacks (transaction_id, by_token, body, body_sha256, headers, source, received_at,
last_received_at, state, outcome, checkout_request_id, next_attempt_at, applied_at) SELECT id, TRUE,
b.body, sha256(b.body), '{"content-type": "application/json;charset=UTF-8", "user-agent":
"Apache-Http"}', '196.201.214.200', finished_at, finished_at, 'APPLIED', 'completed',
checkout_request_id, finished_at, finished_at FROM transactions, LATERAL (SELECT
convert_to(jsonb_build_object('Body', jsonb_build_object('stkCallback',
jsonb_build_object('MerchantRequestID', merchant_request_id, 'CheckoutRequestID',
checkout_request_id, 'ResultCode', 0, 'ResultDesc', result_desc, 'CallbackMetadata',
jsonb_build_object('Item', (SELECT jsonb_agg(jsonb_build_object('Name', key, 'Value', value)) FROM
jsonb_each(metadata))))))::text, 'UTF8') AS body) b WHERE created_at = %(at)s::timestamptz ORDER BY
id;

-- The webhook of each.
INSERT INTO deliveries (webhook_id, transaction_id, merchant, type, url, origin, body, state,
attempts_made, failures, created_at, finished_at, next_attempt_at) SELECT 'msg_' ||
replace(gen_random_uuid()::text, '-', ''), id, merchant, 'transaction.completed', webhook_url,
substring(webhook_url from '^[a-z]+://[^/]+'), convert_to(jsonb_build_object('type',
'transaction.completed', 'transaction_id', internal_transaction_id, 'merchant', merchant, 'status',
status, 'amount', amount, 'phone', phone, 'account_reference', account_reference, 'metadata',
metadata, 'timestamp', finished_at)::text, 'UTF8'), %(state)s::text, %(attempts)s::int,
%(attempts)s::int, finished_at, CASE WHEN %(state)s::text <> 'PENDING' THEN finished_at END, CASE
WHEN %(state)s::text = 'PENDING' THEN finished_at + interval '100 years' END FROM transactions WHERE
created_at = %(at)s::timestamptz ORDER BY id;

-- Its tries.
INSERT INTO webhook_attempts (transaction_id, delivery_id, attempt_number, outcome, success,
response_status_code, response_time_ms, attempted_at) SELECT transaction_id, d.id, n, CASE WHEN n =
attempts_made AND %(state)s::text = 'DELIVERED' THEN 'delivered' ELSE 'failed' END, n =
attempts_made AND %(state)s::text = 'DELIVERED', CASE WHEN n = attempts_made AND %(state)s::text =
'DELIVERED' THEN 200 ELSE 500 END, 42, d.created_at FROM deliveries d JOIN transactions t ON t.id =
d.transaction_id, generate_series(1, attempts_made) n WHERE t.created_at = %(at)s::timestamptz ORDER
BY d.id, n;
