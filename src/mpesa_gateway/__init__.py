"""mpesa-gateway: a payment gateway for M-Pesa STK Push."""

__version__ = "0.1.0"
