-- Payments as they live, in the product's own steps and with every index there: each statement is
-- a commit, so that they leave the dead rows that the product leaves. bench/scale_build.py runs it.

-- The intent.
INSERT INTO transactions (id, internal_transaction_id, merchant, idempotency_key, request_sha256,
    amount, phone, short_code, webhook_url, account_reference, description, push_state,
    push_lease_until, prompt_until, callback_secret_sha256, created_at, updated_at)
OVERRIDING SYSTEM VALUE
SELECT n, uuidv7(at - clock_timestamp()), 'default', gen_random_uuid(), sha256(int8send(n)), 10,
    '2547' || lpad((n * 7919 % 1000003)::text, 8, '0'), '174379',
    'http://127.0.0.1:1024/webhooks', 'INV-' || n, 'Payment', 'INTENT', at + interval '12 s',
    at + interval '90 s', sha256(int8send(n)), at, at
FROM (SELECT n, %(begin)s::timestamptz + n * %(step)s::interval AS at
      FROM generate_series(%(first)s::bigint, %(last)s::bigint) n) a;
INSERT INTO transaction_events (transaction_id, at, source, kind)
SELECT n, %(begin)s, 'caller', 'requested'
FROM generate_series(%(first)s::bigint, %(last)s::bigint) n;

-- The push.
UPDATE transactions SET push_state = 'SENDING', push_lease_until = created_at + interval '20 s'
WHERE id BETWEEN %(first)s AND %(last)s;
UPDATE transactions SET push_state = 'ACCEPTED', push_lease_until = NULL,
    checkout_request_id = 'ws_CO_' || to_char(created_at, 'DDMMYYYYHH24MISSMS') || substr(phone, 4),
    merchant_request_id = '29115-' || id || '-1', next_query_at = created_at + interval '1 min',
    response_status = 201, response_body = '{"transaction_id": "", "status": "PENDING"}'
WHERE id BETWEEN %(first)s AND %(last)s;
INSERT INTO transaction_events (transaction_id, at, source, kind)
SELECT n, %(begin)s, 'push', 'accepted'
FROM generate_series(%(first)s::bigint, %(last)s::bigint) n;

-- The callback.
INSERT INTO callbacks (transaction_id, by_token, body, body_sha256, source, received_at,
    last_received_at, next_attempt_at)
SELECT id, TRUE, convert_to(repeat('x', 440) || id, 'utf8'),
    sha256(convert_to(repeat('x', 440) || id, 'utf8')), '196.201.214.200',
    created_at + interval '8 s', created_at + interval '8 s', created_at + interval '8 s'
FROM transactions WHERE id BETWEEN %(first)s AND %(last)s ORDER BY id;
UPDATE transactions SET status = 'COMPLETED', settled_by = 'callback', result_code = '0',
    result_desc = 'The service request is processed successfully.',
    receipt = 'UL' || lpad(id::text, 8, '0'),
    metadata = jsonb_build_object('Amount', amount, 'MpesaReceiptNumber', 'UL' || id),
    next_query_at = NULL, updated_at = created_at + interval '8 s',
    finished_at = created_at + interval '8 s'
WHERE id BETWEEN %(first)s AND %(last)s;
INSERT INTO transaction_events (transaction_id, at, source, kind)
SELECT n, %(begin)s, 'callback', 'completed'
FROM generate_series(%(first)s::bigint, %(last)s::bigint) n;
UPDATE callbacks SET state = 'APPLIED', outcome = 'completed', applied_at = received_at
WHERE state = 'RECEIVED' AND transaction_id BETWEEN %(first)s AND %(last)s AND by_token;

-- The webhook.
INSERT INTO deliveries (webhook_id, transaction_id, merchant, type, url, origin, body,
    next_attempt_at, created_at)
SELECT 'msg_' || replace(uuidv7(finished_at - clock_timestamp())::text, '-', ''), id, merchant,
    'transaction.completed', webhook_url, 'http://127.0.0.1:1024',
    convert_to(repeat('x', 390), 'utf8'), finished_at, finished_at
FROM transactions WHERE id BETWEEN %(first)s AND %(last)s ORDER BY id;
UPDATE deliveries SET claim = 1, lease_until = created_at + interval '15 s', attempts_made = 1
WHERE transaction_id BETWEEN %(first)s AND %(last)s;
INSERT INTO webhook_attempts (transaction_id, delivery_id, attempt_number, attempted_at)
SELECT transaction_id, id, 1, created_at FROM deliveries
WHERE transaction_id BETWEEN %(first)s AND %(last)s ORDER BY id;
UPDATE webhook_attempts SET outcome = 'delivered', success = TRUE, response_status_code = 200,
    response_time_ms = 42
WHERE transaction_id BETWEEN %(first)s AND %(last)s;
UPDATE deliveries SET state = 'DELIVERED', next_attempt_at = NULL, lease_until = NULL,
    finished_at = created_at
WHERE transaction_id BETWEEN %(first)s AND %(last)s;
