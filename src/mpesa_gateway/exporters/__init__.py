"""What is read on the metrics port: backlog, pools, merchants, and the server itself."""
