"""The HTTP API: translates, never decides. The only importer of falcon."""
