"""A MerchantConfig becomes a merchant file, and says so once every pod has loaded it."""

from __future__ import annotations

import hashlib

from harness.merchantconfigs import DARAJA, FakePod, Operator, Shops, condition


def test_a_merchant_becomes_ready_once_every_pod_has_its_file(
    operator: Operator, shops: Shops, pods: dict[str, FakePod]
):
    shops.add()
    body = shops.wait("Ready", "True", timeout_s=10)
    file = shops.file()
    assert file is not None
    assert file["credentials"] == DARAJA
    keys = shops.generated()
    assert file["apiKeySHA256"] == [hashlib.sha256(keys["api-key"].encode()).hexdigest()]
    assert file["webhook"]["secrets"] == [keys["webhook-signing-secret"]]
    assert body["status"]["credentialsSecretName"] == "duka-mpesa-gateway"
    assert condition(body, "CredentialsValid")["reason"] == "TokenIssued"
