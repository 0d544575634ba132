-- Work that waits, the same in both databases: bench/scale_build.py runs it for a range of numbers.

-- Payments whose customer is asked; every tenth is due to be asked after.
INSERT INTO transactions (id, internal_transaction_id, merchant, idempotency_key, request_sha256,
    amount, phone, short_code, webhook_url, account_reference, description, push_state,
    prompt_until, callback_secret_sha256, checkout_request_id, next_query_at, response_status,
    response_body, created_at, updated_at)
OVERRIDING SYSTEM VALUE
SELECT n, uuidv7(), 'default', gen_random_uuid(), sha256(int8send(n)), 10,
    '2541' || lpad(n::text, 8, '0'), '174379', 'http://127.0.0.1:1024/webhooks', 'INV', 'Payment',
    'ACCEPTED', now() + interval '90 s', sha256(int8send(n)), 'ws_CO_open' || n,
    now() + CASE WHEN n % 10 = 0 THEN interval '-1 min' ELSE interval '1 day' END, 201, '{}',
    now(), now()
FROM generate_series(%(first)s::bigint, %(last)s::bigint) n;
-- A third of them have a callback that waits, a tenth of those in quarantine.
INSERT INTO callbacks (transaction_id, by_token, body, body_sha256, source, received_at,
    last_received_at, next_attempt_at, state, outcome, applied_at)
SELECT n, TRUE, 'x', sha256(int8send(n)), '196.201.214.200', now(), now(), now(),
    CASE WHEN n % 30 = 0 THEN 'QUARANTINED' ELSE 'RECEIVED' END,
    CASE WHEN n % 30 = 0 THEN 'mismatch' END, CASE WHEN n % 30 = 0 THEN now() END
FROM generate_series(%(first)s::bigint, %(last)s::bigint) n WHERE n % 3 = 0;
-- Webhooks: half of them due, half waiting for their next try or for their endpoint.
INSERT INTO deliveries (webhook_id, transaction_id, merchant, type, url, origin, body,
    attempts_made, failures, next_attempt_at, waits_for_endpoint, created_at)
SELECT 'msg_open' || n, n, 'default', 'transaction.completed', 'http://127.0.0.1:1024/webhooks',
    'http://127.0.0.1:1024', 'x', 1, 1,
    now() + CASE WHEN n % 2 = 0 THEN interval '-1 min' ELSE interval '1 h' END, n % 4 = 1, now()
FROM generate_series(%(first)s::bigint, %(last)s::bigint) n;
INSERT INTO conflicts (transaction_id, kind, opened_at)
SELECT n, 'paid_after_failed', now()
FROM generate_series(%(first)s::bigint, %(last)s::bigint) n WHERE n % 60 = 0;
INSERT INTO failing_endpoints (merchant, origin, failures_in_row, failing_since, parked_until)
SELECT 'default', 'https://shop-' || n || '.example.com', 5, now(), now() + interval '1 h'
FROM generate_series(1, 20) n;
