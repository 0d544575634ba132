"""`python -m daraja_simulator`: the simulator in the foreground, one option for each setting."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from daraja_simulator.server import serve
from daraja_simulator.settings import Kind, Settings, SettingsError

_LOG_EXTRAS = ("phone", "outcome", "answer_status", "error")


class _WithExtras(logging.Formatter):
    """Appends what a log line says beside its sentence."""

    def format(self, record: logging.LogRecord) -> str:
        extras = {name: getattr(record, name, None) for name in _LOG_EXTRAS}
        said = [f"{name}={value}" for name, value in extras.items() if value is not None]
        return " ".join([super().format(record), *said])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="daraja_simulator",
        description="A stand-in for Safaricom's Daraja API. GET / lists what it can do.",
        argument_default=argparse.SUPPRESS,
    )
    for setting in fields(Settings):
        option = "--" + setting.name.replace("_", "-")
        help_text = f"{setting.metadata['help']} (default: {setting.default})"
        kind = setting.metadata["kind"]
        if kind is Kind.SWITCH:
            parser.add_argument(option, action=argparse.BooleanOptionalAction, help=help_text)
        elif kind is Kind.MAPPING:
            parser.add_argument(
                option, action="append", type=_pair, metavar="NAME=VALUE", help=help_text
            )
        else:
            parser.add_argument(option, metavar=kind.upper(), help=help_text)
    parser.add_argument(
        "--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"]
    )
    return parser


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError("must be NAME=VALUE")
    return name, value


def _parse_settings(given: dict[str, Any]) -> Settings:
    """Raises SettingsError."""
    values: dict[str, Any] = {k: dict(v) if isinstance(v, list) else v for k, v in given.items()}
    return Settings(**values)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; the exit status."""
    parser = _parser()
    given = vars(parser.parse_args(arguments))
    handler = logging.StreamHandler()
    handler.setFormatter(_WithExtras("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=given.pop("log_level"), handlers=[handler])
    try:
        serve(_parse_settings(given))
    except SettingsError as error:
        parser.error(str(error))
    except OSError as error:
        parser.exit(1, f"the simulator cannot start: {error}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
