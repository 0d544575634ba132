-- Payments that ended long ago, by number: bench/scale_build.py runs it for a range of them.
-- Ids are the numbers, so that each table is made without reading another.

-- transactions
INSERT INTO transactions (id, internal_transaction_id, merchant, idempotency_key, request_sha256,
    status, amount, phone, short_code, webhook_url, account_reference, description, push_state,
    prompt_until, callback_secret_sha256, checkout_request_id, merchant_request_id,
    response_status, response_body, receipt, metadata, result_code, result_desc, failure_reason,
    settled_by, created_at, updated_at, finished_at)
OVERRIDING SYSTEM VALUE
SELECT n, uid, merchant, gen_random_uuid(), sha256(int8send(n)),
    CASE WHEN paid THEN 'COMPLETED' ELSE 'FAILED' END, amount, phone, '174379',
    'https://' || merchant || '.example.com/webhooks', 'INV-' || n % 1000000, 'Payment',
    'ACCEPTED', at + interval '90 s', sha256(int8send(n)),
    'ws_CO_' || to_char(at, 'DDMMYYYYHH24MISSMS') || substr(phone, 4), '29115-' || n || '-1',
    201, '{"transaction_id": "' || uid || '", "status": "PENDING"}',
    CASE WHEN paid THEN receipt END,
    CASE WHEN paid THEN jsonb_build_object('Amount', amount, 'MpesaReceiptNumber', receipt,
        'TransactionDate', to_char(at, 'YYYYMMDDHH24MISS')::bigint, 'PhoneNumber', phone::bigint)
    END,
    CASE WHEN paid THEN '0' ELSE '1032' END,
    CASE WHEN paid THEN 'The service request is processed successfully.'
        ELSE 'Request cancelled by user' END,
    CASE WHEN paid THEN NULL ELSE 'cancelled' END, 'callback', at, at + interval '8 s',
    at + interval '8 s'
FROM (
    SELECT n, at, uuidv7(at - clock_timestamp()) AS uid, n % 100 >= 15 AS paid, 10 + n % 5000 AS amount,
        CASE WHEN n % 10 < 5 THEN 'default' ELSE 'shop-' || n % 97 END AS merchant,
        '2547' || lpad((n * 7919 % 1000003)::text, 8, '0') AS phone,
        'U' || chr(64 + date_part('month', at)::int) || lpad(n::text, 8, '0') AS receipt
    FROM (SELECT n, %(begin)s::timestamptz + n * %(step)s::interval AS at
          FROM generate_series(%(first)s::bigint, %(last)s::bigint) n) a
) b;

-- transaction_events
INSERT INTO transaction_events (transaction_id, at, source, kind, detail)
SELECT n, at, v.source, v.kind, v.detail::jsonb
FROM (SELECT n, %(begin)s::timestamptz + n * %(step)s::interval AS at
      FROM generate_series(%(first)s::bigint, %(last)s::bigint) n) a,
    LATERAL (VALUES ('caller', 'requested', '{}'), ('push', 'accepted', '{}'),
        ('callback', 'completed', '{"code": "0", "receipt": "UA' || n || '"}'))
    v (source, kind, detail);

-- callbacks
INSERT INTO callbacks (id, transaction_id, by_token, body, body_sha256, headers, source,
    received_at, last_received_at, state, outcome, checkout_request_id, next_attempt_at, applied_at)
OVERRIDING SYSTEM VALUE
SELECT n, n, TRUE, body, sha256(body),
    '{"content-type": "application/json;charset=UTF-8", "user-agent": "Apache-Http"}',
    '196.201.214.200', at, at, 'APPLIED', 'completed', checkout, at, at
FROM (
    SELECT n, at, checkout, convert_to(
        '{"Body": {"stkCallback": {"MerchantRequestID": "29115-' || n
        || '-1", "CheckoutRequestID": "' || checkout || '", "ResultCode": 0, "ResultDesc":'
        || ' "The service request is processed successfully.", "CallbackMetadata": {"Item":'
        || ' [{"Name": "Amount", "Value": 10}, {"Name": "MpesaReceiptNumber", "Value": "UA'
        || n || '"}, {"Name": "Balance"}, {"Name": "TransactionDate", "Value": 20261002181102},'
        || ' {"Name": "PhoneNumber", "Value": 254708374149}]}}}}', 'utf8') AS body
    FROM (
        SELECT n, at, 'ws_CO_' || to_char(at, 'DDMMYYYYHH24MISSMS') || '7'
            || lpad((n * 7919 % 1000003)::text, 8, '0') AS checkout
        FROM (SELECT n, %(begin)s::timestamptz + n * %(step)s::interval AS at
              FROM generate_series(%(first)s::bigint, %(last)s::bigint) n) a
    ) b
) c;

-- deliveries
INSERT INTO deliveries (id, webhook_id, transaction_id, merchant, type, url, origin, body, state,
    attempts_made, failures, created_at, finished_at)
OVERRIDING SYSTEM VALUE
SELECT n, 'msg_' || replace(uuidv7(at - clock_timestamp())::text, '-', ''), n, merchant,
    CASE WHEN n % 100 >= 15 THEN 'transaction.completed' ELSE 'transaction.failed' END,
    'https://' || merchant || '.example.com/webhooks', 'https://' || merchant || '.example.com',
    convert_to('{"type": "transaction.completed", "transaction_id": "' || gen_random_uuid()
        || '", "merchant": "' || merchant || '", "status": "COMPLETED", "amount": "10", "phone":'
        || ' "254708374149", "account_reference": "INV-' || n || '", "metadata": {"Amount": 10,'
        || ' "MpesaReceiptNumber": "UA' || n || '", "TransactionDate": 20261002181102,'
        || ' "PhoneNumber": 254708374149}, "timestamp": "2026-10-02T15:11:02.123456+00:00"}',
        'utf8'),
    CASE WHEN n % 1000 = 0 THEN 'EXHAUSTED' ELSE 'DELIVERED' END,
    CASE WHEN n % 1000 = 0 THEN 5 WHEN n % 33 = 0 THEN 2 ELSE 1 END,
    CASE WHEN n % 1000 = 0 THEN 5 WHEN n % 33 = 0 THEN 1 ELSE 0 END, at, at
FROM (
    SELECT n, CASE WHEN n % 10 < 5 THEN 'default' ELSE 'shop-' || n % 97 END AS merchant,
        %(begin)s::timestamptz + n * %(step)s::interval + interval '8 s' AS at
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) n
) a;

-- webhook_attempts
INSERT INTO webhook_attempts (transaction_id, delivery_id, attempt_number, outcome, success,
    response_status_code, response_time_ms, attempted_at)
SELECT n, n, k, CASE WHEN good THEN 'delivered' ELSE 'failed' END, good,
    CASE WHEN good THEN 200 ELSE 503 END, 42, at + k * interval '1 min'
FROM (
    SELECT n, k, k = tries AND tries < 5 AS good, at
    FROM (SELECT n, %(begin)s::timestamptz + n * %(step)s::interval AS at,
              CASE WHEN n % 1000 = 0 THEN 5 WHEN n % 33 = 0 THEN 2 ELSE 1 END AS tries
          FROM generate_series(%(first)s::bigint, %(last)s::bigint) n) a,
        generate_series(1, tries) k
) b;
