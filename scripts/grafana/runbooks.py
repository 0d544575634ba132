"""Where each panel leads: to the runbook of an alert that watches the same, if there is one."""

from __future__ import annotations

from grafana.panels import runbook

CALLBACKS_MISSING = runbook("MpesaCallbacksMissing")
CALLBACKS_REFUSED = runbook("MpesaCallbackAckFailing")
CALLBACKS_SLOW = runbook("MpesaCallbackSlow")
CALLBACKS_STUCK = runbook("MpesaCallbackStuck")
CONFLICTS = runbook("MpesaConflict")
QUARANTINE = runbook("MpesaCallbackQuarantined")
PAYMENTS_STUCK = runbook("MpesaPaymentsStuckPending")
INITIATE_ERRORS = runbook("MpesaInitiateFailing")
RESULTS = runbook("MpesaInitiateFailing")
MONEY = "docs/troubleshooting.md"
MERCHANTS = runbook("MpesaMerchantNotReady")
WEBHOOKS_SLOW = runbook("MpesaWebhookSlow")
WEBHOOKS_FAILING = runbook("MpesaWebhooksFailing")
WEBHOOKS_EXHAUSTED = runbook("MpesaWebhookExhausted")
ENDPOINT_PARKED = runbook("MpesaEndpointParked")
DARAJA_AUTH = runbook("MpesaDarajaAuthFailing")
DARAJA_THROTTLING = runbook("MpesaDarajaThrottling")
CLOCKS = runbook("MpesaClockSkew")
MONTHS = runbook("MpesaMonthMissing")
LOST = runbook("MpesaAcknowledgedLost")
NOT_WRITABLE = runbook("MpesaDatabaseNotWritable")
POOLS = runbook("MpesaDatabasePoolFull")
WAKEUPS = runbook("MpesaWakeupsLost")
PROCESSES = runbook("MpesaApiSilent")
CONFIG_FAILED = runbook("MpesaMerchantFileUnusable")
CONFIG_STALE = runbook("MpesaConfigStale")
MIGRATIONS = runbook("MpesaMigrationsPending")
OPERATOR_SILENT = runbook("MpesaOperatorSilent")
MERCHANT_NOT_READY = runbook("MpesaMerchantNotReady")
BUNDLE = runbook("MpesaBundleNearLimit")
ORPHANED = runbook("MpesaMerchantsOrphaned")
