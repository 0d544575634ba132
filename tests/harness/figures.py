"""Figures that a suite measures, kept for its report."""

from __future__ import annotations

from typing import Protocol

import pytest

Measured = tuple[str, float, float | None]
FIGURES = pytest.StashKey[list[Measured]]()


class Figure(Protocol):
    """What the fixture `figure` gives a test."""

    def __call__(self, what: str, value: float, *, limit: float | None = None) -> None:
        """Keep it, and fail when it is not below the limit that was promised."""


def lines(figures: list[Measured]) -> list[str]:
    """The report."""
    return [
        f"{value:9.2f}  {what}" + (f"   (promised: under {limit:g})" if limit is not None else "")
        for what, value, limit in figures
    ]
