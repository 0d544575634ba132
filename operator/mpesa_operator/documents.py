"""JSON that others wrote."""

from __future__ import annotations

import json
from typing import Any


def parse_json(text: bytes) -> Any:
    """A JSON document. Raises ValueError, also where it is nested too deep to be read."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
