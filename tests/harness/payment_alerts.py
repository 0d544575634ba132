"""The worlds in which the alerts of callbacks, payments and Safaricom ring, and do not.

One row a case: the alert, the world, the minute, what rings, what Prometheus sees.
"""

from __future__ import annotations

from harness.alerts import BOTH, PAGE, SILENT, TICKET, Case


def _callbacks(good: str, all_: str) -> dict[str, str]:
    name = "mpesa_callback_lag_seconds"
    return {f'{name}_bucket{{le="5.0"}}': good, f"{name}_count": all_}


def _acks(kept: str, unavailable: str) -> dict[str, str]:
    return {
        "mpesa_callback_ack_seconds_count": kept,
        'mpesa_callbacks_rejected_total{reason="unavailable"}': unavailable,
        'mpesa_callbacks_rejected_total{reason="unknown_token"}': "0+50x4400",
    }


def _initiates(created: str, unavailable: str, unknown: str = "0x4400") -> dict[str, str]:
    return {
        'mpesa_http_requests_total{route="/initiate",status="201"}': created,
        'mpesa_http_requests_total{route="/initiate",status="503"}': unavailable,
        'mpesa_http_requests_total{route="/initiate",status="400"}': "0+50x4400",
        'mpesa_http_requests_total{route="/callback",status="503"}': "0+50x4400",
        'mpesa_stk_push_total{outcome="unknown"}': unknown,
    }


def _prompts(accepted: str, received: str) -> dict[str, str]:
    return {
        'mpesa_stk_push_total{outcome="accepted"}': accepted,
        'mpesa_callbacks_total{outcome="received"}': received,
    }


PENDING_AGE = "mpesa_transaction_pending_oldest_age_seconds"
CALLBACK_AGE = "mpesa_callback_oldest_unprocessed_age_seconds"
REFUSED_TOKEN = 'mpesa_daraja_request_seconds_count{operation="token",outcome="refused"}'
THROTTLED_PUSH = 'mpesa_daraja_request_seconds_count{operation="push",outcome="throttled"}'
SLOW_QUERY = 'mpesa_daraja_request_seconds_count{operation="query",outcome="slow_down"}'
REJECTED_TOKEN = "mpesa_daraja_token_rejected_total"
REFUSED_SENDER = 'mpesa_callbacks_rejected_total{reason="not_allowed_good_token"}'
BUDGET = 'mpesa_daraja_budget_refused_total{operation="push"}'
ACCEPTED = 'mpesa_stk_push_total{outcome="accepted"}'

PAYMENT_CASES: tuple[Case, ...] = (
    # --- callbacks -------------------------------------------------------------------------------
    Case("MpesaCallbackStuck", "the worker is dead", 6, PAGE, {CALLBACK_AGE: "0+60x20"}),
    Case("MpesaCallbackStuck", "a moment's wait", 6, SILENT, {CALLBACK_AGE: "0 90 0 119x9"}),
    Case("MpesaCallbackStuck", "it was stuck and is not", 9, SILENT, {CALLBACK_AGE: "0 300x5 0x9"}),
    Case("MpesaCallbackSlow", "5 % late for an hour", 70, BOTH, _callbacks("0+19x99", "0+20x99")),
    Case(
        "MpesaCallbackSlow",
        "late for an hour, and mended since",
        106,
        TICKET,
        _callbacks("0+20x30 600+19x39 1360+20x60", "0+20x120"),
    ),
    Case(
        "MpesaCallbackSlow",
        "a shop with a callback an hour, one late",
        70,
        SILENT,
        _callbacks("0x60 0x30", "0x60 1x30"),
    ),
    Case(
        "MpesaCallbackSlow",
        "0.2 % late for three days",
        4320,
        TICKET,
        _callbacks("0+499x4400", "0+500x4400"),
    ),
    Case(
        "MpesaCallbackSlow",
        "0.05 % late for three days",
        4320,
        SILENT,
        _callbacks("0+1999x4400", "0+2000x4400"),
    ),
    Case(
        "MpesaCallbackAckFailing",
        "Postgres is away: one in ten is answered 503",
        70,
        BOTH,
        _acks("0+18x99", "0+2x99"),
        fault="Postgres stopped",
    ),
    Case(
        "MpesaCallbackAckFailing",
        "unknown tokens are refused on purpose",
        70,
        SILENT,
        _acks("0+18x99", "0x99"),
    ),
    Case(
        "MpesaCallbackAckFailing",
        "three lost in an hour are too few to wake somebody",
        70,
        SILENT,
        _acks("0x99", "0x40 3x59"),
    ),
    Case(
        "MpesaCallbackAckFailing",
        "0.1 % for three days",
        4320,
        TICKET,
        _acks("0+999x4400", "0+1x4400"),
    ),
    Case(
        "MpesaCallbackSenderRefused",
        "one callback with a good token from an address that is not listed",
        10,
        PAGE,
        {REFUSED_SENDER: "0x5 1x20"},
    ),
    Case(
        "MpesaCallbackSenderRefused",
        "it was a while ago",
        30,
        SILENT,
        {REFUSED_SENDER: "0x5 1x40"},
    ),
    Case(
        "MpesaCallbackSenderRefused",
        "strangers without a token are refused on purpose",
        10,
        SILENT,
        {
            REFUSED_SENDER: "0x20",
            'mpesa_callbacks_rejected_total{reason="not_allowed"}': "0+50x20",
            'mpesa_callbacks_rejected_total{reason="unknown_token"}': "0+50x20",
        },
    ),
    Case(
        "MpesaCallbacksMissing",
        "prompts go out, nothing comes back",
        45,
        PAGE,
        _prompts("0+1x60", "0x60"),
        fault="no callback",
    ),
    Case("MpesaCallbacksMissing", "all come back", 45, SILENT, _prompts("0+1x60", "0+1x60")),
    Case("MpesaCallbacksMissing", "half come back", 45, SILENT, _prompts("0+2x60", "0+1x60")),
    Case(
        "MpesaCallbacksMissing",
        "five prompts in half an hour are too few to judge",
        45,
        SILENT,
        _prompts("0x20 5x40", "0x60"),
    ),
    Case(
        "MpesaCallbackOrphaned",
        "one came",
        15,
        PAGE,
        {'mpesa_callbacks_total{outcome="orphan"}': "0x9 1x90"},
        fault="a database that lost payments",
    ),
    Case(
        "MpesaCallbackOrphaned",
        "none came",
        15,
        SILENT,
        {'mpesa_callbacks_total{outcome="orphan"}': "0x90"},
    ),
    Case(
        "MpesaCallbackQuarantined",
        "one was put aside",
        15,
        TICKET,
        {'mpesa_callbacks_total{outcome="quarantined"}': "0x9 1x90"},
        fault="wrong amount in the callback",
    ),
    Case(
        "MpesaCallbackQuarantined",
        "one was put aside yesterday",
        90,
        SILENT,
        {
            'mpesa_callbacks_total{outcome="quarantined"}': "0x9 1x90",
            'mpesa_callbacks_total{outcome="completed"}': "0+5x99",
        },
    ),
    # --- payments --------------------------------------------------------------------------------
    Case(
        "MpesaPaymentsStuckPending",
        "no callback, and queries that know nothing",
        70,
        TICKET,
        {PENDING_AGE: "0+60x99"},
        fault="no callback, and the query knows nothing",
    ),
    Case(
        "MpesaPaymentsStuckPending",
        "ended after an hour",
        70,
        SILENT,
        {PENDING_AGE: "0+60x60 0x30"},
    ),
    Case(
        "MpesaPaymentNeedsAttention",
        "a person is asked for",
        10,
        TICKET,
        {"mpesa_transactions_attention": "0 1x30"},
        fault="accepted then connection cut, and no callback",
    ),
    Case(
        "MpesaPaymentNeedsAttention",
        "Safaricom reports another amount",
        10,
        TICKET,
        {"mpesa_transactions_attention": "0x3 2x30"},
        fault="wrong amount in the callback",
    ),
    Case(
        "MpesaPaymentNeedsAttention",
        "nobody is",
        10,
        SILENT,
        {"mpesa_transactions_attention": "0x30"},
    ),
    Case(
        "MpesaConflict",
        "paid after FAILED",
        3,
        PAGE,
        {"mpesa_conflicts_open": "0 0 1x30"},
        fault="query contradicts callback",
    ),
    Case("MpesaConflict", "a person closed it", 9, SILENT, {"mpesa_conflicts_open": "0 1x5 0x9"}),
    Case(
        "MpesaInitiateFailing",
        "Safaricom is busy: 503 for one in ten",
        70,
        BOTH,
        _initiates("0+9x99", "0+1x99"),
        fault="busy",
    ),
    Case(
        "MpesaInitiateFailing",
        "Postgres is away: every call is answered 503",
        70,
        BOTH,
        _initiates("0+9x60 540x40", "0x60 0+9x40"),
        fault="Postgres stopped",
    ),
    Case(
        "MpesaInitiateFailing",
        "one in ten is cut off after it left",
        70,
        BOTH,
        _initiates("0+10x99", "0x99", "0+1x99"),
        fault="accepted then connection cut",
    ),
    Case(
        "MpesaInitiateFailing",
        "bad input is the caller's",
        70,
        SILENT,
        _initiates("0+9x99", "0x99"),
    ),
    Case(
        "MpesaInitiateFailing",
        "1 % for three days",
        4320,
        TICKET,
        _initiates("0+99x4400", "0+1x4400"),
    ),
    Case(
        "MpesaInitiateFailing",
        "four of five in a night without trade",
        70,
        SILENT,
        _initiates("0x30 1x60", "0x30 4x60"),
    ),
    # --- Safaricom -------------------------------------------------------------------------------
    Case(
        "MpesaDarajaAuthFailing",
        "the consumer secret was changed",
        20,
        PAGE,
        {REFUSED_TOKEN: "0+1x40", REJECTED_TOKEN: "0x40", ACCEPTED: "7x40"},
        fault="OAuth refuses the credentials",
    ),
    Case(
        "MpesaDarajaAuthFailing",
        "every token is rejected",
        20,
        PAGE,
        {REFUSED_TOKEN: "0x40", REJECTED_TOKEN: "0+2x40", ACCEPTED: "7x40"},
    ),
    Case(
        "MpesaDarajaAuthFailing",
        "one merchant's are wrong, others pay",
        20,
        SILENT,
        {REFUSED_TOKEN: "0+1x40", REJECTED_TOKEN: "0x40", ACCEPTED: "0+3x40"},
    ),
    Case(
        "MpesaDarajaTokenContested",
        "two programs take turns",
        40,
        TICKET,
        {REFUSED_TOKEN: "0x60", REJECTED_TOKEN: "0+1x60", ACCEPTED: "0+3x60"},
    ),
    Case(
        "MpesaDarajaTokenContested",
        "one token ended early",
        40,
        SILENT,
        {REFUSED_TOKEN: "0x60", REJECTED_TOKEN: "0x20 1x40"},
    ),
    Case(
        "MpesaDarajaThrottling",
        "spike arrest",
        25,
        TICKET,
        {THROTTLED_PUSH: "0+1x40", SLOW_QUERY: "0x40", BUDGET: "0x40"},
        fault="spike 429",
    ),
    Case(
        "MpesaDarajaThrottling",
        "busy",
        25,
        TICKET,
        {THROTTLED_PUSH: "0+2x40", SLOW_QUERY: "0+1x40", BUDGET: "0x40"},
        fault="busy",
    ),
    Case(
        "MpesaDarajaThrottling",
        "our own budget is used up",
        25,
        TICKET,
        {THROTTLED_PUSH: "0x40", SLOW_QUERY: "0x40", BUDGET: "0+1x40"},
    ),
    Case(
        "MpesaDarajaThrottling",
        "one call was turned away",
        25,
        SILENT,
        {THROTTLED_PUSH: "0x15 1x25", SLOW_QUERY: "0x40", BUDGET: "0x40"},
    ),
)
