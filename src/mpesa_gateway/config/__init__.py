"""The configuration: every `MPESA_*` variable, read once into one frozen object."""

from mpesa_gateway.config.config import Config, Needs

__all__ = ["Config", "Needs"]
