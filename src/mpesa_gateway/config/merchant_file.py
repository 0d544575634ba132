"""A merchant file, version 1: what the operator writes, and whoever has no Kubernetes by hand."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    AnyHttpUrl,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    model_validator,
)

from mpesa_gateway.config.config import Config
from mpesa_gateway.domain.duration import parse_schedule
from mpesa_gateway.domain.endpoint import parse_endpoint
from mpesa_gateway.domain.merchant import (
    DEFAULT_RETRY_SCHEDULE,
    Credentials,
    Merchant,
    TransactionType,
    parse_networks,
)
from mpesa_gateway.domain.signature import signing_key
from mpesa_gateway.errors import InvalidInputError

_URL = TypeAdapter(AnyHttpUrl)

Text = Annotated[str, Field(min_length=1, max_length=512)]
# White space around a credential is never a part of it: editors and `kubectl` add line ends.
Credential = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=512)]
Name = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?/[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", max_length=320
    ),
]


def _http_url(value: str) -> str:
    _URL.validate_python(value)
    return value.rstrip("/")


def _secret(value: str) -> str:
    signing_key(value)
    return value


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class _Credentials(_Model):
    consumer_key: Credential = Field(alias="consumerKey")
    consumer_secret: Credential = Field(alias="consumerSecret")
    passkey: Credential


class _Callback(_Model):
    allowed_cidrs: list[Text] = Field(default=[], alias="allowedCIDRs", max_length=256)


class _Webhook(_Model):
    url: Text | None = None
    allowed_hosts: list[Text] = Field(default=[], alias="allowedHosts", max_length=64)
    secrets: list[Annotated[Credential, AfterValidator(_secret)]] = Field(
        min_length=1, max_length=8
    )
    retry_schedule: list[Text] | None = Field(default=None, alias="retrySchedule", max_length=32)


class _Limits(_Model):
    min_amount: int | None = Field(default=None, alias="minAmount", ge=1)
    max_amount: int | None = Field(default=None, alias="maxAmount", ge=1)
    initiate_per_minute: int | None = Field(default=None, alias="initiatePerMinute", ge=0)


class MerchantFile(_Model):
    """One merchant file, version 1: MerchantConfig's words with the secrets resolved."""

    version: Literal[1]
    name: Name
    uid: Annotated[str, Field(pattern=r"^[0-9A-Za-z-]{1,64}$")] | None = None
    environment: Literal["sandbox", "production"]
    base_url: Annotated[str, AfterValidator(_http_url)] | None = Field(
        default=None, alias="baseUrl"
    )
    short_code: str = Field(alias="shortCode", pattern=r"^[0-9]{5,7}$")
    transaction_type: TransactionType = Field(alias="transactionType")
    till_number: str | None = Field(default=None, alias="tillNumber", pattern=r"^[0-9]{5,8}$")
    credentials: _Credentials
    api_key_sha256: list[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]] = Field(
        alias="apiKeySHA256", min_length=1, max_length=8
    )
    callback: _Callback = _Callback()
    webhook: _Webhook
    limits: _Limits = _Limits()
    suspended: bool = False
    draining: bool = False

    @model_validator(mode="after")
    def _till_exactly_for_buy_goods(self) -> MerchantFile:
        buys_goods = self.transaction_type == "CustomerBuyGoodsOnline"
        if buys_goods != (self.till_number is not None):
            raise ValueError("tillNumber is needed for CustomerBuyGoodsOnline, and only then")
        low, high = self.limits.min_amount, self.limits.max_amount
        if low is not None and high is not None and low > high:
            raise ValueError("limits.minAmount is above limits.maxAmount")
        return self

    def to_merchant(self, config: Config) -> Merchant:
        """The merchant. Raises ValueError with what the file has wrong."""
        limits = self.limits
        try:
            if self.webhook.url is not None:
                parse_endpoint(self.webhook.url, allow_private=config.webhook_allow_private)
        except InvalidInputError as error:
            raise ValueError(f"webhook.url: {error.problems[0].message}") from error
        return Merchant(
            name=self.name,
            base_url=self.base_url or config.base_url_for(self.environment),
            short_code=self.short_code,
            transaction_type=self.transaction_type,
            till_number=self.till_number,
            credentials=Credentials(
                self.credentials.consumer_key,
                self.credentials.consumer_secret,
                self.credentials.passkey,
            ),
            api_key_sha256=tuple(bytes.fromhex(text) for text in self.api_key_sha256),
            allowed_networks=parse_networks(self.callback.allowed_cidrs),
            webhook_url=self.webhook.url,
            allowed_hosts=tuple(host.lower().rstrip(".") for host in self.webhook.allowed_hosts),
            webhook_secrets=tuple(self.webhook.secrets),
            retry_schedule=_schedule(self.webhook.retry_schedule),
            min_amount=Decimal(limits.min_amount or 1),
            max_amount=config.ceilings.lower_amount(
                None if limits.max_amount is None else Decimal(limits.max_amount)
            ),
            initiate_per_minute=config.ceilings.lower_rate(limits.initiate_per_minute),
            suspended=self.suspended,
            draining=self.draining,
            uid=self.uid,
        )


def _schedule(texts: list[str] | None) -> tuple[timedelta, ...]:
    return DEFAULT_RETRY_SCHEDULE if texts is None else parse_schedule(texts)
