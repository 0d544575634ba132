"""What a person types: click commands, rich tables, `--json` for scripts."""
