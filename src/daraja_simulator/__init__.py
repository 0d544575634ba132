"""A stand-in for Safaricom's Daraja API: OAuth, STK push, STK query and callbacks.

It speaks as the real one does (official documentation [O], public measurements of the sandbox
[M], bodies pasted into public issues [I]), plays a customer for each phone, and keeps a ledger of
what it charged. It knows nothing of whoever is tested with it.
"""

from daraja_simulator.server import Running, RunningSimulator, running, serve
from daraja_simulator.settings import Settings, SettingsError

__all__ = ["Running", "RunningSimulator", "Settings", "SettingsError", "running", "serve"]
