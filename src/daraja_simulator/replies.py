"""The HTTP answers of Daraja: one function for each shape."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from daraja_simulator.ids import new_merchant_request_id
from daraja_simulator.outcomes import RESULT_TEXTS, PushAnswer
from daraja_simulator.settings import OpenPromptAnswer

JSON = "application/json"

_SUBSCRIBER_LOCKED = (
    "Unable to lock subscriber, a transaction is already in process for the current subscriber"
)
_HTML_503 = (
    "<html><head><title>503 Service Unavailable</title></head>"
    "<body><h1>Service Unavailable</h1><p>The request could not be served.</p></body></html>"
)


@dataclass(frozen=True)
class Reply:
    """One HTTP answer."""

    status: int
    body: str
    content_type: str = JSON


class RefusedError(Exception):
    """Daraja refuses the request with this answer."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.body)
        self.reply = reply


@dataclass(frozen=True)
class PaymentIds:
    """Both names that Daraja gives to a push."""

    merchant_request_id: str
    checkout_request_id: str


def error(status: int, code: str, message: str) -> Reply:
    """The normal error body [O]."""
    body = {
        "requestId": new_merchant_request_id(),
        "errorCode": code,
        "errorMessage": message,
    }
    return Reply(status, json.dumps(body))


def invalid_field(field: str) -> Reply:
    """A field is missing or wrong [O]."""
    return error(400, "400.002.02", f"Bad Request - Invalid {field}")


def invalid_payload() -> Reply:
    """The body is no JSON object [O]."""
    return error(400, "400.002.05", "Invalid Request Payload")


def too_large() -> Reply:
    """The body is above the limit. Safaricom's own answer is not known."""
    return error(413, "400.002.05", "Invalid Request Payload")


def invalid_authentication_type() -> Reply:
    """OAuth without HTTP Basic [O]."""
    return error(400, "400.008.01", "Invalid Authentication passed")


def invalid_grant_type() -> Reply:
    """OAuth with another grant type than client_credentials [O]."""
    return error(400, "400.008.02", "Invalid grant type passed")


def wrong_credentials() -> Reply:
    """A wrong consumer key or secret is answered with an empty body [I]."""
    return Reply(400, "")


def invalid_token() -> Reply:
    """The bearer token is unknown, expired or replaced; HTTP 404 on STK [O][I]."""
    return error(404, "404.001.03", "Invalid Access Token")


def no_bearer() -> Reply:
    """The Authorization header is missing or is not a bearer token [O]."""
    return error(404, "404.001.04", "Invalid Authentication Header")


def not_found() -> Reply:
    """No such path [O]."""
    return error(404, "404.001.01", "Resource not found")


def wrong_method() -> Reply:
    """The path exists, but not with this verb [O]."""
    return error(405, "405.001", "Method Not Allowed")


def merchant_unknown() -> Reply:
    """The short code has no passkey here [O]."""
    return error(500, "500.001.1001", "Merchant does not exist")


def wrong_password() -> Reply:
    """Password is not base64 of short code, passkey and timestamp [O][I]."""
    return error(500, "500.001.1001", "[MerchantValidate] - Wrong credentials")


def subscriber_locked() -> Reply:
    """A prompt is open on that phone [O]."""
    return error(500, "500.001.1001", _SUBSCRIBER_LOCKED)


def busy() -> Reply:
    """The system is busy: nothing was sent [O]."""
    return error(500, "500.003.02", "System is busy. Please try again in few minutes.")


def spike_arrest(per_minute: int) -> Reply:
    """The throttle in front of the API answers in its own envelope (measured) [M]."""
    rate = (
        f"MessageRate{{messagesPerPeriod={per_minute}, periodInMicroseconds=60000000,"
        " maxBurstMessageCount=1.0}"
    )
    fault = {
        "faultstring": f"Spike arrest violation. Allowed rate : {rate}",
        "detail": {"errorcode": "policies.ratelimit.SpikeArrestViolation"},
    }
    return Reply(429, json.dumps({"fault": fault}))


def token_fault() -> Reply:
    """The API gateway refuses the access token in its own envelope [I]."""
    fault = {
        "faultstring": "Invalid Access Token",
        "detail": {"errorcode": "keymanagement.service.invalid_access_token"},
    }
    return Reply(401, json.dumps({"fault": fault}))


def token(access_token: str, lifetime_s: int, *, as_number: bool) -> Reply:
    """`expires_in` is a text in the wild [I] and a number on newer pages [O][M]."""
    expires_in = lifetime_s if as_number else str(lifetime_s)
    return Reply(200, json.dumps({"access_token": access_token, "expires_in": expires_in}))


def accepted(ids: PaymentIds) -> Reply:
    """A prompt is being sent to the phone [O]."""
    body = {
        "MerchantRequestID": ids.merchant_request_id,
        "CheckoutRequestID": ids.checkout_request_id,
        "ResponseCode": "0",
        "ResponseDescription": "Success. Request accepted for processing",
        "CustomerMessage": "Success. Request accepted for processing",
    }
    return Reply(200, json.dumps(body))


def accepted_without_id(ids: PaymentIds) -> Reply:
    """As `accepted`, but nothing in it can be queried."""
    body = json.loads(accepted(ids).body)
    del body["CheckoutRequestID"]
    return Reply(200, json.dumps(body))


# None means that the connection is cut instead of an answer.
PUSH_REPLIES: dict[PushAnswer, Callable[[PaymentIds], Reply | None]] = {
    PushAnswer.ACCEPTED: accepted,
    PushAnswer.HANG: accepted,
    PushAnswer.CUT: lambda _: None,
    PushAnswer.INTERNAL_ERROR: lambda _: error(500, "500.003.1001", "Internal Server Error"),
    PushAnswer.WITHOUT_ID: accepted_without_id,
    PushAnswer.REFUSED: lambda _: invalid_field("PhoneNumber"),
    PushAnswer.BUSY: lambda _: busy(),
    PushAnswer.SPIKE_ARREST: lambda _: spike_arrest(5),
    PushAnswer.HTML_503: lambda _: Reply(503, _HTML_503, "text/html"),
    PushAnswer.TOKEN_FAULT: lambda _: token_fault(),
}


def query_result(ids: PaymentIds, code: str, description: str) -> Reply:
    """A query was understood; `code` is the result, always as a text [O][M]."""
    body = {
        "ResponseCode": "0",
        "ResponseDescription": "The service request has been accepted successfully",
        "MerchantRequestID": ids.merchant_request_id,
        "CheckoutRequestID": ids.checkout_request_id,
        "ResultCode": code,
        "ResultDesc": description,
    }
    return Reply(200, json.dumps(body))


def query_ended(ids: PaymentIds, code: str) -> Reply:
    """The payment ended with that result code."""
    return query_result(ids, code, RESULT_TEXTS[code].query)


def no_information(status: int = 500) -> Reply:
    """An empty message, which says nothing about the payment (measured) [M]."""
    return error(status, "500.001.1001", "")


def invalid_checkout_request_id() -> Reply:
    """Asked too early, or with a wrong id (measured) [M]."""
    return invalid_field("CheckoutRequestID")


OPEN_PROMPT_REPLIES: dict[OpenPromptAnswer, Callable[[PaymentIds], Reply]] = {
    OpenPromptAnswer.STILL_PROCESSING: lambda ids: query_result(
        ids, "4999", "The transaction is still under processing"
    ),
    OpenPromptAnswer.BEING_PROCESSED: lambda _: error(
        500, "500.001.1001", "The transaction is being processed"
    ),
    OpenPromptAnswer.EMPTY_500: lambda _: no_information(),
    OpenPromptAnswer.EMPTY_200: lambda _: no_information(200),
    OpenPromptAnswer.DOES_NOT_EXIST: lambda _: error(
        500, "500.001.1001", "The transaction does not Exist"
    ),
    OpenPromptAnswer.INVALID_ID: lambda _: invalid_checkout_request_id(),
}
