"""`python -m mpesa_gateway` is `mpesa-gateway`."""

from mpesa_gateway.cli import main

main()
