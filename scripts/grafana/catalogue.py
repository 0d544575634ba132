"""All dashboards, in the order in which they are read."""

from __future__ import annotations

from grafana.operations import OPERATIONS
from grafana.overview import OVERVIEW
from grafana.payments import PAYMENTS
from grafana.webhooks import WEBHOOKS

DASHBOARDS = (OVERVIEW, PAYMENTS, WEBHOOKS, OPERATIONS)
