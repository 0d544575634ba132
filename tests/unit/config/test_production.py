"""The production rules follow the money, and a merchant file obeys them like the environment."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from harness.collecting import every_case
from mpesa_gateway.config import Config, Needs
from mpesa_gateway.config.production import PLACEHOLDERS
from mpesa_gateway.config.settings import PREFIX, SETTINGS
from mpesa_gateway.domain.production import PRODUCTION_URL, SANDBOX_URL
from mpesa_gateway.errors import ConfigError
from mpesa_gateway.merchants.directory import MerchantDirectory

ROOT = Path(__file__).resolve().parents[3]
PASSWORD = base64.b64encode(b"600100passkey20261002181102").decode()
SAFE = {
    "ENVIRONMENT": "production",
    "DATABASE_URL": "postgresql://mpesa:secret@db.example.com/mpesa?sslmode=verify-full",
    "REDIS_URL": "rediss://:secret@redis.example.com:6379/0",
    "INTERNAL_SECRET": "k" * 32,
    "WEBHOOK_SECRET": "whsec_" + base64.b64encode(b"w" * 32).decode(),
    "SAFARICOM_CONSUMER_KEY": "consumer-key",
    "SAFARICOM_CONSUMER_SECRET": "consumer-secret",
    "SAFARICOM_PASSKEY": "passkey",
    "SAFARICOM_SHORT_CODE": "600100",
    "SAFARICOM_CALLBACK_URL": "https://pay.example.com/callback",
    "SAFARICOM_BASE_URL": PRODUCTION_URL,
    "SAFARICOM_IPS": "196.201.214.200,196.201.212.0/24",
    "TRUSTED_PROXIES": "10.0.0.0/8",
}


def environment(**changes: str | None) -> dict[str, str]:
    values = {**SAFE, **changes}
    return {PREFIX + name: value for name, value in values.items() if value is not None}


def problems(**changes: str | None) -> list[str]:
    try:
        Config.from_env(environment(**changes))
    except ConfigError as error:
        return error.problems
    return []


def test_a_safe_configuration_is_accepted_and_has_nothing_to_warn_of() -> None:
    config = Config.from_env(environment())

    assert config.warnings == ()
    assert config.callback_token_required


UNSAFE: list[tuple[str, str | None]] = [
    ("SAFARICOM_IPS", ""),
    ("SAFARICOM_IPS", "0.0.0.0/0"),
    ("SAFARICOM_IPS", "0.0.0.0/1,128.0.0.0/1"),
    ("SAFARICOM_IPS", "196.201.214.200,8000::/1,::/1"),
    ("TRUSTED_PROXIES", "0.0.0.0/1,128.0.0.0/1"),
    ("TRUSTED_PROXIES", "::/0"),
    ("CALLBACK_TOKEN_REQUIRED", "false"),
    ("WEBHOOK_ALLOW_PRIVATE", "true"),
    ("FAILPOINTS", "/tmp/failpoints"),  # noqa: S108
    ("SAFARICOM_BASE_URL", "http://api.safaricom.co.ke"),
    ("SAFARICOM_BASE_URL", SANDBOX_URL),
    ("SAFARICOM_BASE_URL", None),
    ("SAFARICOM_BASE_URL", "https://SANDBOX.safaricom.co.ke:443"),
    ("SAFARICOM_CALLBACK_URL", "https://abc123.ngrok-free.app/callback"),
    ("SAFARICOM_CALLBACK_URL", "https://pay.example.com/mpesa"),
    ("SAFARICOM_CALLBACK_URL", "https://10.0.0.7/callback"),
    ("INTERNAL_SECRET", "short"),
    ("WEBHOOK_SECRET", None),
    ("WEBHOOK_SECRET", "w" * 40),
    ("WEBHOOK_SECRET", "whsec_c2hvcnQ="),
    ("DATABASE_URL", "postgresql://db.example.com/mpesa"),
    ("DATABASE_URL", "postgresql://db.example.com/mpesa?sslmode=prefer"),
    ("DATABASE_URL", "postgresql://db.example.com/mpesa?sslmode=allow"),
    ("DATABASE_URL", "postgresql://u:p%40@127.0.0.1,196.201.1.1:5433/mpesa?sslmode=disable"),
    ("DATABASE_URL", "postgresql://127.0.0.1/mpesa?host=db.example.com"),
    ("DATABASE_URL", "postgresql://127.0.0.1/mpesa?hostaddr=196.201.1.1"),
    ("DATABASE_URL", "postgresql://[2a00:1450::1]:5432/mpesa"),
    ("REDIS_URL", "redis://redis.example.com/0"),
    ("REDIS_URL", "redis://:p@8.8.8.8:6379"),
    ("OTLP_ENDPOINT", "http://traces.example.com:4318"),
]


@every_case(("name", "value"), UNSAFE)
def test_what_is_unsafe_is_an_error_that_names_the_variable(name: str, value: str | None) -> None:
    found = problems(**{name: value})

    assert [it for it in found if it.startswith(f"{PREFIX}{name} ")], found


@every_case(
    ("name", "value"),
    [
        ("DATABASE_URL", "postgresql://mpesa@postgres/mpesa"),
        ("DATABASE_URL", "postgresql://mpesa@db.payments.svc:5432,10.0.0.7/mpesa?sslmode=disable"),
        ("DATABASE_URL", "postgresql:///mpesa"),
        ("DATABASE_URL", "postgresql:///mpesa?host=/var/run/postgresql"),
        ("DATABASE_URL", "postgresql://%2Fvar%2Frun%2Fpostgresql/mpesa"),
        ("DATABASE_URL", "postgresql://db.example.com/mpesa?sslmode=require"),
        ("DATABASE_URL", "postgresql://db.example.com/mpesa?ssl=true"),
        ("DATABASE_URL", "postgresql://db.example.com/mpesa?hostaddr=10.0.0.7"),
        ("DATABASE_URL", "postgresql://[fd00::7]:5432/mpesa"),
        ("REDIS_URL", "redis://redis-master.payments.svc.cluster.local:6379/0"),
        ("REDIS_URL", "unix:///run/redis.sock"),
        ("OTLP_ENDPOINT", "http://otel-collector.tracing.svc:4318"),
        ("OTLP_ENDPOINT", "https://traces.example.com"),
        ("CALLBACK_TOKEN_REQUIRED", "true"),
        ("TRUSTED_PROXIES", ""),
    ],
)
def test_what_is_private_or_encrypted_is_accepted(name: str, value: str) -> None:
    assert problems(**{name: value}) == []


def test_the_webhook_secret_must_not_be_the_api_key() -> None:
    secret = SAFE["WEBHOOK_SECRET"]

    assert problems(INTERNAL_SECRET=secret)[0].startswith("MPESA_WEBHOOK_SECRET is MPESA_INTERNAL")


@every_case(
    "url", [PRODUCTION_URL, "https://API.safaricom.co.ke./", "https://daraja-proxy.example.com"]
)
@every_case("word", [None, "sandbox"])
def test_real_money_under_sandbox_rules_does_not_start(url: str, word: str | None) -> None:
    found = problems(ENVIRONMENT=word, SAFARICOM_BASE_URL=url, SAFARICOM_IPS="")

    assert [it.split(" ")[0] for it in found] == ["MPESA_ENVIRONMENT", "MPESA_SAFARICOM_IPS"]


@pytest.mark.parametrize("name", sorted(PLACEHOLDERS))
def test_a_placeholder_of_the_example_file_is_refused(name: str) -> None:
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    assert f"\n{PREFIX}{name}={PLACEHOLDERS[name]}\n" in example

    found = problems(**{name: f" {PLACEHOLDERS[name]}\n"})

    assert found == [f"{PREFIX}{name} is the placeholder of .env.example, which everybody knows"]


def test_every_credential_of_the_example_file_counts_as_a_placeholder() -> None:
    """A key that is given an example must not be forgotten."""
    example = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    given = dict(line.split("=", 1) for line in example if line and not line.startswith("#"))
    credentials = {it.name for it in SETTINGS if it.secret and PREFIX + it.name in given}

    assert credentials - set(PLACEHOLDERS) == {"DATABASE_URL", "REDIS_URL"}


def test_outside_production_each_is_a_warning_of_one_line() -> None:
    env = environment(
        **dict.fromkeys(("ENVIRONMENT", "SAFARICOM_BASE_URL", "SAFARICOM_IPS", "WEBHOOK_SECRET")),
        SAFARICOM_CALLBACK_URL="http://127.0.0.1:8080/callback",
        INTERNAL_SECRET="short",
    )
    config = Config.from_env(env)

    assert sorted(it.split(" ")[0] for it in config.warnings) == [
        "MPESA_CALLBACK_TOKEN_REQUIRED",
        "MPESA_INTERNAL_SECRET",
        "MPESA_SAFARICOM_CALLBACK_URL",
        "MPESA_SAFARICOM_IPS",
        "MPESA_WEBHOOK_SECRET",
    ]
    assert not any("\n" in it for it in config.warnings)
    assert not config.callback_token_required


def test_a_password_in_place_of_the_passkey_is_named_in_every_environment() -> None:
    for word, url in (("production", PRODUCTION_URL), ("sandbox", SANDBOX_URL)):
        found = problems(SAFARICOM_PASSKEY=PASSWORD, ENVIRONMENT=word, SAFARICOM_BASE_URL=url)

        assert [it for it in found if it.startswith("MPESA_SAFARICOM_PASSKEY is a push's Password")]
        assert PASSWORD not in "".join(found)


@every_case("name", ["SAFARICOM_IPS", "TRUSTED_PROXIES", "WEBHOOK_RETRY_SCHEDULE"])
@every_case("value", [",", "10.0.0.1,", ",10.0.0.1", "10.0.0.1,,10.0.0.2"])
def test_an_empty_item_in_a_list_is_an_error(name: str, value: str) -> None:
    found = problems(**{name: value if name != "WEBHOOK_RETRY_SCHEDULE" else "1m,,5m"})

    assert f"{PREFIX}{name} has an empty item between its commas" in found


def merchant_file(**changes: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "name": "shop-a/duka",
        "environment": "production",
        "shortCode": "600100",
        "transactionType": "CustomerPayBillOnline",
        "credentials": {"consumerKey": "ck", "consumerSecret": "cs", "passkey": "pk"},
        "apiKeySHA256": ["0" * 64],
        "webhook": {"secrets": ["secret-of-duka"]},
        **changes,
    }


def directory(tmp_path: Path, **changes: str | None) -> MerchantDirectory:
    merchants = tmp_path / "merchants"
    merchants.mkdir(exist_ok=True)
    env = environment(**{"MERCHANTS_DIR": str(merchants), **changes})
    return MerchantDirectory(Config.from_env(env))


def write(tmp_path: Path, **changes: Any) -> None:
    path = tmp_path / "merchants" / "duka.json"
    path.write_text(json.dumps(merchant_file(**changes)), encoding="utf-8")


SANDBOX = {"ENVIRONMENT": "sandbox", "SAFARICOM_BASE_URL": SANDBOX_URL}


@every_case(
    ("env", "changes", "field"),
    [
        (SANDBOX, {"environment": "production"}, "environment"),
        (SANDBOX, {"environment": "sandbox", "baseUrl": PRODUCTION_URL}, "environment"),
        (SANDBOX, {"baseUrl": "https://proxy.example.com"}, "environment"),
        ({}, {"baseUrl": "http://api.safaricom.co.ke"}, "baseUrl"),
        ({}, {"baseUrl": "http://10.0.0.7"}, "baseUrl"),
        ({}, {"environment": "sandbox"}, "environment"),
        ({}, {"baseUrl": "https://sandbox.safaricom.co.ke/"}, "environment"),
        (
            {},
            {
                "credentials": {
                    "consumerKey": "your-consumer-key ",
                    "consumerSecret": "x",
                    "passkey": "y",
                }
            },
            "credentials",
        ),
        (
            {},
            {
                "credentials": {
                    "consumerKey": "ck",
                    "consumerSecret": "x",
                    "passkey": f"{PASSWORD}\n",
                }
            },
            "credentials.passkey",
        ),
    ],
)
def test_a_file_that_breaks_the_rules_is_refused_and_its_last_good_version_stays(
    tmp_path: Path, env: dict[str, str], changes: dict[str, Any], field: str
) -> None:
    merchants = directory(tmp_path, **env)
    good = {} if not env else {"environment": "sandbox"}
    write(tmp_path, **good)
    merchants.refresh()
    before = merchants.current().find("shop-a/duka")
    assert before is not None

    write(tmp_path, **{**good, **changes, "suspended": True})
    merchants.refresh()

    assert merchants.current().errors["duka.json"].startswith(f"{field}: ")
    assert PASSWORD not in merchants.current().errors["duka.json"]
    assert merchants.current().find("shop-a/duka") == before


def test_white_space_around_a_credential_is_stripped_in_the_environment_and_in_files(
    tmp_path: Path,
) -> None:
    (tmp_path / "passkey").write_text("\r\n pk \n", encoding="utf-8")
    merchants = directory(
        tmp_path,
        SAFARICOM_CONSUMER_KEY=" ck\n",
        SAFARICOM_PASSKEY=None,
        SAFARICOM_PASSKEY_FILE=str(tmp_path / "passkey"),
    )
    spaced = {"consumerKey": " ck\n", "consumerSecret": "\tcs", "passkey": "pk\r\n"}
    write(tmp_path, credentials=spaced, webhook={"secrets": [" secret-of-duka\n"]})
    merchants.refresh()

    by_name = merchants.current().by_name
    for name, secret in (("default", "consumer-secret"), ("shop-a/duka", "cs")):
        credentials = by_name[name].credentials
        assert vars(credentials) == {
            "consumer_key": "ck",
            "consumer_secret": secret,
            "passkey": "pk",
        }
    assert by_name["shop-a/duka"].webhook_secrets == ("secret-of-duka",)


def test_the_merchants_command_judges_files_like_the_gateway() -> None:
    config = Config.from_env(environment(), Needs.MERCHANTS)

    assert config.environment == "production"
