"""What a hostile tenant tries, each as one function: run against a real API server, and against the
in-memory one in the quick tests. All of them need an operator with the tests' resync of 3 s.
"""

from __future__ import annotations

from collections.abc import Callable

from harness.merchantconfigs import DARAJA, condition
from harness.tenants import OWN_APP, VICTIM, Town, previous_keys, restore, sha
from harness.waiting import wait_for
from mpesa_operator.bundle import LARGEST_ENTRY
from mpesa_operator.keys import MAX_PREVIOUS

Attack = Callable[[Town], None]


def names_nobody(town: Town, text: str) -> None:
    assert text
    assert town.victim.namespace not in text
    assert town.attacker.namespace not in text
    assert "owner" not in text


def refused_claim(town: Town, name: str, reason: str) -> None:
    """The claimant is told, the owner is told, and neither hears of the other's objects."""
    for kind in ("Published", "Ready"):
        body = town.attacker.wait(kind, "False", reason, name=name)
        names_nobody(town, condition(body, kind)["message"])
    names_nobody(town, town.told(town.attacker, name, reason)["message"])
    names_nobody(town, town.told(town.victim, "owner", reason)["message"])
    assert condition(town.victim.get("owner"), "Ready")["status"] == "True"


# --- API keys ----------------------------------------------------------------------------------


def writes_the_key_into_its_own_secret(town: Town) -> None:
    key = town.serve_victim()
    town.serve_attacker()
    town.edit_generated("x", **{"api-key": key})
    wait_for(lambda: town.attacker.generated("x")["api-key"] != key, what="a key of its own")
    town.attacker.wait("Ready", "True", name="x")
    assert sha(key) not in str(town.attacker.file("x"))
    assert town.paid_to(key) == VICTIM
    assert town.paid_to(town.attacker.generated("x")["api-key"], "254712341111") == "999999"


def writes_the_digest_into_its_replaced_keys(town: Town) -> None:
    key = town.serve_victim()
    town.serve_attacker()
    town.edit_generated("x", **{"previous-api-keys": previous_keys(sha(key))})
    wait_for(
        lambda: "previous-api-keys" not in town.attacker.generated("x"), what="nothing replaced"
    )
    town.attacker.wait("Ready", "True", name="x")
    assert sha(key) not in str(town.attacker.file("x"))
    assert town.paid_to(key) == VICTIM


def chooses_a_short_key(town: Town) -> None:
    town.serve_victim()
    town.serve_attacker()
    town.edit_generated("x", **{"api-key": "mpg_own"})
    wait_for(lambda: town.attacker.generated("x")["api-key"] != "mpg_own", what="a real key")
    town.attacker.wait("Ready", "True", name="x")
    assert sha("mpg_own") not in str(town.attacker.file("x"))
    assert town.pay("mpg_own").status_code == 401


def names_the_digest_in_its_spec(town: Town) -> None:
    key = town.serve_victim()
    before = town.victim.file("owner")
    town.attacker.add_secret("own", **OWN_APP)
    spec = {"shortCode": "999999", "credentialsSecretRef": {"name": "own"}}
    town.attacker.add("x", **spec, apiKey={"sha256": sha(key)})
    refused_claim(town, "x", "ApiKeyConflict")
    assert town.attacker.file("x") is None
    assert town.victim.file("owner") == before
    assert town.paid_to(key) == VICTIM


def brings_the_key_in_a_secret(town: Town) -> None:
    """Of a merchant that is served already: it goes on with its own key."""
    key = town.serve_victim()
    town.serve_attacker()
    own, before = town.attacker.generated("x")["api-key"], town.victim.file("owner")
    town.attacker.add_secret("stolen", k=key)
    town.attacker.change("x", apiKey={"secretRef": {"name": "stolen", "key": "k"}})
    refused_claim(town, "x", "ApiKeyConflict")
    assert town.victim.file("owner") == before
    assert town.paid_to(key) == VICTIM
    assert town.paid_to(own, "254712341111") == "999999"
    # What is refused does not hold up a suspension.
    town.attacker.change("x", suspended=True)
    wait_for(lambda: (town.attacker.file("x") or {})["suspended"], what="the suspension")


def claims_a_key_that_is_no_longer_in_use(town: Town) -> None:
    """A client that still has it would pay the attacker: in its grace, retired, of who is gone."""
    keys = [town.serve_victim()]
    town.attacker.add_secret("own", **OWN_APP)
    spec = {"shortCode": "999999", "credentialsSecretRef": {"name": "own"}}

    def rotate(text: str) -> None:
        town.victim.change("owner", rotation={"apiKey": text})
        wait_for(lambda: town.victim.generated("owner")["api-key"] not in keys, what="a new key")
        keys.append(town.victim.generated("owner")["api-key"])
        wait_for(lambda: in_file(keys[-1]), what="its publication")

    def in_file(key: str) -> bool:
        return sha(key) in str(town.victim.file("owner"))

    def is_refused(key: str) -> None:
        town.attacker.add("x", **spec, apiKey={"sha256": sha(key)})
        body = town.attacker.wait("Published", "False", "ApiKeyConflict", name="x")
        names_nobody(town, condition(body, "Published")["message"])
        assert town.attacker.file("x") is None
        town.attacker.delete("x")
        wait_for(lambda: town.kube.find(town.attacker.path("x")) is None, what="its end")

    rotate("leaked")
    assert in_file(keys[0])
    is_refused(keys[0])
    for number in range(MAX_PREVIOUS):
        rotate(f"again {number}")
    assert not in_file(keys[0])
    is_refused(keys[0])
    town.victim.delete("owner")
    wait_for(lambda: town.victim.file("owner") is None, timeout_s=60, what="its end")
    for key in (keys[0], keys[-1]):
        is_refused(key)
        assert town.pay(key).status_code == 401


# --- tokens ------------------------------------------------------------------------------------


def uses_an_app_without_its_secret(town: Town) -> None:
    """It knows the victim's consumer key, or shares its app with a typing error in the secret."""
    key = town.serve_victim()
    app = {"consumerKey": DARAJA["consumerKey"], "consumerSecret": "a typing error"}
    town.attacker.add_secret("theft", **app)
    town.attacker.add("x", shortCode="999999", credentialsSecretRef={"name": "theft"})
    town.attacker.wait("Ready", "False", "Rejected", name="x")
    wait_for(lambda: town.attacker.file("x") is not None, what="its file")
    own = town.attacker.generated("x")["api-key"]
    for number in range(5):
        # Before and after each try, with a token that is cached and with one that is fetched.
        assert town.paid_to(key, f"2547123410{number}0") == VICTIM
        stolen = town.pay(own, f"2547123420{number}0")
        assert stolen.status_code == 502, stolen.text
        assert town.gateway.simulator.ledger(phone=f"2547123420{number}0")["pushes"] == []
        assert town.paid_to(key, f"2547123430{number}0") == VICTIM
    assert condition(town.victim.get("owner"), "Ready")["status"] == "True"


# --- short codes -------------------------------------------------------------------------------


def squats_a_short_code_without_credentials(town: Town) -> None:
    town.attacker.add("squat", shortCode=VICTIM, credentialsSecretRef={"name": "nothing"})
    town.attacker.wait("Ready", "False", "SecretNotFound", name="squat")
    assert town.paid_to(town.serve_victim()) == VICTIM
    town.attacker.wait("Published", "False", "ShortCodeConflict", name="squat")


def squats_a_short_code_with_worthless_credentials(town: Town) -> None:
    """Published first, while nobody else asked for it; it goes once an accepted claim comes."""
    town.attacker.add_secret("bad", consumerKey="ck-of-nobody", consumerSecret="cs-of-nobody")
    town.attacker.add("squat", shortCode=VICTIM, credentialsSecretRef={"name": "bad"})
    town.attacker.wait("Ready", "False", "Rejected", name="squat")
    key = town.serve_victim()
    wait_for(lambda: town.attacker.file("squat") is None, what="the squatter's end")
    assert town.paid_to(key) == VICTIM


def claims_a_published_short_code_with_an_app_of_its_own(town: Town) -> None:
    key = town.serve_victim()
    before = town.victim.file("owner")
    town.attacker.add_secret("own", **OWN_APP)
    town.attacker.add("x", shortCode=VICTIM, credentialsSecretRef={"name": "own"})
    refused_claim(town, "x", "ShortCodeConflict")
    # Not even when the owner's credentials are refused some day.
    town.victim.change_secret(consumerSecret="a typing error")
    town.victim.wait("CredentialsValid", "False", "Rejected", name="owner")
    town.attacker.change("x", limits={"minAmount": 2})
    town.attacker.wait("Published", "False", "ShortCodeConflict", name="x")
    assert town.attacker.file("x") is None
    town.victim.change_secret(consumerSecret=DARAJA["consumerSecret"])
    town.victim.wait("Ready", "True", name="owner")
    assert town.victim.file("owner") == before
    assert town.paid_to(key) == VICTIM


def forges_that_its_claim_was_accepted(town: Town) -> None:
    """Who may write the status as well cannot say in it what only Daraja can."""
    town.attacker.add_secret("bad", consumerKey="ck-of-nobody", consumerSecret="cs-of-nobody")
    town.attacker.add("squat", shortCode=VICTIM, credentialsSecretRef={"name": "bad"})
    status = town.attacker.wait("Ready", "False", "Rejected", name="squat")["status"]
    for found in status["conditions"]:
        found.update({"status": "True", "reason": "TokenIssued"})
    status["acceptedClaim"] = "0" * 32
    town.kube.patch(f"{town.attacker.path('squat')}/status", {"status": status})
    assert town.paid_to(town.serve_victim()) == VICTIM


def takes_another_till_of_the_same_store(town: Town) -> None:
    """No attack: two tills of one head office are two merchants."""
    till = {"transactionType": "CustomerBuyGoodsOnline", "shortCode": VICTIM}
    town.victim.add("owner", **till, tillNumber="900900")
    town.victim.wait("Ready", "True", name="owner")
    town.serve_attacker("x", **till, tillNumber="900901")
    assert town.victim.file("owner")
    assert town.attacker.file("x")
    town.attacker.add("again", **till, tillNumber="900900", credentialsSecretRef={"name": "own"})
    refused_claim(town, "again", "ShortCodeConflict")


# --- the bundle, Secrets -----------------------------------------------------------------------


def makes_its_file_large(town: Town) -> None:
    town.serve_victim()
    town.serve_attacker()
    hosts = [f"{n}." + "h" * 60 + "." + "h" * 60 + ".example" for n in range(64)]
    town.attacker.change("x", webhook={"allowedHosts": hosts})
    town.attacker.wait("Published", "False", "FileTooLarge", name="x")
    assert len(str(town.attacker.file("x"))) < LARGEST_ENTRY


def makes_more_merchants_than_it_may(town: Town) -> None:
    """With at most two in a namespace, as the tests' operator is told."""
    town.serve_victim()
    town.serve_attacker("x")
    own = {"credentialsSecretRef": {"name": "own"}}
    town.attacker.add("more1", shortCode="888881", **own)
    town.attacker.wait("Ready", "True", name="more1")
    town.attacker.add("more2", shortCode="888882", **own)
    town.attacker.wait("Published", "False", "TooManyMerchants", name="more2")
    assert town.attacker.file("more2") is None
    town.attacker.delete("x")
    town.attacker.wait("Ready", "True", name="more2", timeout_s=30)


def raises_a_platform_ceiling(town: Town) -> None:
    """The town's gateway takes 70,000 at most, whatever a merchant's own limits say."""
    town.serve_attacker(limits={"maxAmount": 100_000_000})
    key = town.attacker.generated("x")["api-key"]
    town.refresh()
    refused = town.gateway.initiate("254712340000", key=key, amount="70001")
    assert refused.status_code == 400, refused.text
    assert town.gateway.initiate("254712340000", key=key, amount="70000").status_code == 201


def sees_what_was_paid_to_an_earlier_owner_of_its_name(town: Town) -> None:
    """The same namespace and name, of another object."""
    town.attacker.add_secret("own", **OWN_APP)
    spec = {"shortCode": "999999", "credentialsSecretRef": {"name": "own"}}
    seen: list[int] = []
    for _ in ("the one before", "the next"):
        town.attacker.add("x", **spec)
        town.attacker.wait("Ready", "True", name="x", timeout_s=30)
        key = town.attacker.generated("x")["api-key"]
        town.refresh()
        listed = town.gateway.get("/transactions", key=key).json()["items"]
        seen.append(len(listed))
        assert town.gateway.initiate(f"25471234{len(seen)}000", key=key).status_code == 201
        town.attacker.delete("x")
        wait_for(lambda: town.kube.find(town.attacker.path("x")) is None, what="its end")
        path = town.attacker.secret_path("x-mpesa-gateway")
        if town.kube.find(path) is not None:  # No controller of these tests collects it.
            town.kube.delete(path)
    assert seen == [0, 0]


def reads_a_secret_through_the_operator(town: Town) -> None:
    town.serve_victim()
    town.attacker.add_secret("db-of-another-team", key="S3cret-of-another-team")
    ref = {"signingSecretRef": {"name": "db-of-another-team", "key": "key"}}
    town.serve_attacker(webhook=ref)
    assert (town.attacker.file("x") or {})["webhook"]["secrets"] == ["S3cret-of-another-team"]
    town.attacker.change("x", webhook=None)
    wait_for(lambda: "webhook-signing-secret" in town.attacker.generated("x"), what="a new one")
    wait_for(
        lambda: len((town.attacker.file("x") or {})["webhook"]["secrets"]) == 2,
        what="the overlap",
    )
    generated = town.attacker.generated("x")
    assert "previous-webhook-signing-secrets" in generated
    body = town.attacker.get("x")
    for text in (str(generated), str(body), str(town.events(town.attacker, "x"))):
        assert "S3cret" not in text
        assert sha("S3cret-of-another-team")[:12] not in text


def a_restored_secret_is_adopted(town: Town) -> None:
    """No attack: a backup brings back the Secret of an object that has another uid by now."""
    key = town.serve_victim()
    restore(town.victim, "owner", "11111111-2222-3333-4444-555555555555")
    path = town.victim.secret_path("owner-mpesa-gateway")
    uid = town.victim.get("owner")["metadata"]["uid"]

    def adopted() -> bool:
        owners = town.kube.get(path)["metadata"].get("ownerReferences") or []
        return [it["uid"] for it in owners] == [uid]

    wait_for(adopted, what="the adoption")
    town.victim.wait("Ready", "True", name="owner")
    assert town.victim.generated("owner")["api-key"] == key
    assert town.paid_to(key) == VICTIM


ATTACKS: tuple[Attack, ...] = (
    writes_the_key_into_its_own_secret,
    writes_the_digest_into_its_replaced_keys,
    chooses_a_short_key,
    names_the_digest_in_its_spec,
    brings_the_key_in_a_secret,
    claims_a_key_that_is_no_longer_in_use,
    uses_an_app_without_its_secret,
    squats_a_short_code_without_credentials,
    squats_a_short_code_with_worthless_credentials,
    claims_a_published_short_code_with_an_app_of_its_own,
    forges_that_its_claim_was_accepted,
    takes_another_till_of_the_same_store,
    makes_its_file_large,
    makes_more_merchants_than_it_may,
    raises_a_platform_ceiling,
    sees_what_was_paid_to_an_earlier_owner_of_its_name,
    reads_a_secret_through_the_operator,
    a_restored_secret_is_adopted,
)
