"""What a process tells the outside: log lines, metrics and traces, masked."""
