"""The Grafana dashboards, written in Python; `make dashboards` turns them into the chart's JSON."""
