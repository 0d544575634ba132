from hypothesis import given
from hypothesis import strategies as st

from harness.collecting import every_case
from harness.properties import repeatable
from mpesa_gateway.domain.bundle import bundle_sha256, file_digest, file_name

bundles = st.dictionaries(st.text(max_size=8), st.binary(max_size=8), max_size=4)


def test_a_merchant_has_one_file_name():
    assert file_name("shop", "main.till") == "shop.main.till.json"
    assert file_name("shop", "a") != file_name("sho", "p.a")


def test_a_digest_is_short_and_of_the_content():
    assert file_digest(b"") == "e3b0c44298fc1c14"
    assert file_digest(b"a") != file_digest(b"b")


@repeatable
@given(bundles)
def test_the_order_of_the_files_does_not_matter(files):
    assert bundle_sha256(dict(reversed(list(files.items())))) == bundle_sha256(files)


@every_case("changed", [{}, {"a": b"2"}, {"b": b"1"}, {"a": b"1", "b": b""}, {"a1": b""}])
def test_every_change_shows(changed):
    assert bundle_sha256({"a": b"1"}) != bundle_sha256(changed)
