"""What goes out: Daraja, webhooks, Redis. The only importer of requests."""
