"""The spec of a MerchantConfig, as the API server hands it over.

The CRD has checked it already (lengths, patterns, CEL rules); a test compares the fields.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from mpesa_operator.platform_settings import DEFAULT_GATEWAY


class _Model(BaseModel):
    """Unknown fields are those of a newer CRD: they do not stop an older operator."""

    model_config = ConfigDict(
        alias_generator=to_camel, frozen=True, extra="ignore", hide_input_in_errors=True
    )


class CredentialKeys(_Model):
    """Keys of the credentials Secret."""

    consumer_key: str = "consumerKey"
    consumer_secret: str = "consumerSecret"  # noqa: S105 - the name of a key
    passkey: str = "passkey"


class CredentialsRef(_Model):
    """The Secret with the Daraja credentials."""

    name: str
    keys: CredentialKeys = CredentialKeys()


class Callback(_Model):
    """Who may call back. None does not narrow the platform's list."""

    allowed_cidrs: list[str] | None = Field(default=None, alias="allowedCIDRs")


class SigningSecretRef(_Model):
    """The key of a Secret that signs webhooks."""

    name: str
    key: str


class ApiKeySecretRef(_Model):
    """The key of a Secret that is the merchant's API key."""

    name: str
    key: str


class ApiKey(_Model):
    """The API key that the merchant brings: one of the two."""

    secret_ref: ApiKeySecretRef | None = None
    sha256: str | None = None


class Webhook(_Model):
    """Where the merchant is told how a payment ended."""

    url: str | None = None
    allowed_hosts: list[str] | None = None
    signing_secret_ref: SigningSecretRef | None = None
    retry_schedule: list[str] | None = None


class Limits(_Model):
    """What one payment and one minute may have. None is the gateway's default."""

    min_amount: int | None = None
    max_amount: int | None = None
    initiate_per_minute: int | None = None


class Rotation(_Model):
    """Any new text makes a new key."""

    api_key: str | None = None
    webhook_secret: str | None = None


class MerchantSpec(_Model):
    """What the merchant wants."""

    gateway: str = DEFAULT_GATEWAY
    environment: Literal["sandbox", "production"]
    short_code: str
    transaction_type: Literal["CustomerPayBillOnline", "CustomerBuyGoodsOnline"]
    till_number: str | None = None
    credentials_secret_ref: CredentialsRef
    api_key: ApiKey | None = None
    callback: Callback = Callback()
    webhook: Webhook = Webhook()
    limits: Limits = Limits()
    suspended: bool = False
    rotation: Rotation = Rotation()
