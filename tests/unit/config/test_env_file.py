"""Environment files are read as a shell, Docker and Compose write them, and never repeated."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.collecting import every_case
from mpesa_gateway.config.env_file import merged, read_env_file
from mpesa_gateway.config.unknown import KNOWN, unknown_variables
from mpesa_gateway.errors import ConfigError


def written(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "gateway.env"
    path.write_bytes(content)
    return path


@every_case(
    ("line", "value"),
    [
        (b"A=b", "b"),
        (b"export A=b", "b"),
        (b"  export   A = b  ", "b"),
        (b"A=", ""),
        (b"A='b c # d'", "b c # d"),
        (b'A="b c # d" # e', "b c # d"),
        (b'A="b\\"c\\\\d\\ne\\$f"', 'b"c\\d\ne$f'),
        (b"A='b\\n'", "b\\n"),
        (b"A=b # c", "b"),
        (b"A= # c", ""),
        (b"A=b#c", "b#c"),
        (
            b"A=postgresql://u:p=w@h/d?sslmode=require&x=1",
            "postgresql://u:p=w@h/d?sslmode=require&x=1",
        ),
        (b"A=it's", "it's"),
        (b"A=caf\xc3\xa9", "caf\xe9"),
        (b"A=''", ""),
        (b"A=b\r\n", "b"),
        (b"\xef\xbb\xbfA=b", "b"),
        (b"A=x\nA=b", "b"),
        (b"# c\n\n   \n\t# d\nA=b\n\n", "b"),
        (b"A=$HOME `id`", "$HOME `id`"),
    ],
)
def test_a_line_is_a_setting(tmp_path: Path, line: bytes, value: str) -> None:
    assert read_env_file(written(tmp_path, line)) == {"A": value}


@every_case(
    "line",
    [b"secret", b"=secret", b"A B=secret", b"1A=secret", b"A='secret", b'A="secret', b'A="secret"x',
     b"export secret", b"A: secret", b"- A=secret", b'A="secret\\"', b"A=secret\x00",
     b"\xff=secret"],
)  # fmt: skip
def test_any_other_line_is_named_by_its_number_and_not_repeated(
    tmp_path: Path, line: bytes
) -> None:
    with pytest.raises(ConfigError) as refusal:
        read_env_file(written(tmp_path, b"\xef\xbb\xbf# first\r\nGOOD=1\r\n" + line))

    (problem,) = refusal.value.problems
    assert " line 3 is " in problem
    assert "secret" not in problem


def test_all_bad_lines_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refusal:
        read_env_file(written(tmp_path, b"x\nA=b\ny"))

    assert [" line 1 " in it or " line 3 " in it for it in refusal.value.problems] == [True, True]


def test_a_file_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read: No such file or directory"):
        read_env_file(tmp_path / "none")


def test_the_environment_wins_in_whatever_form_it_names_a_secret() -> None:
    environment = {"A": "", "B_FILE": "/b", "C": "c", "D_FILE": ""}
    file = {"A": "x", "B": "x", "C_FILE": "/x", "D": "x", "E": "x"}

    assert merged(environment, file) == {"D": "x", "E": "x"}


@every_case(
    ("name", "meant"),
    [
        ("MPESA_DATABSE_URL", "MPESA_DATABASE_URL"),
        ("MPESA_SAFARICOM_IP", "MPESA_SAFARICOM_IPS"),
        ("MPESA_SERVER_PORT_FILE", "MPESA_SERVER_PORT"),
        ("mpesa_environment", "MPESA_ENVIRONMENT"),
        ("MPESA_ENV", None),
        ("MPESA_", None),
    ],
)
def test_an_unknown_variable_names_the_nearest_one(name: str, meant: str | None) -> None:
    (sentence,) = unknown_variables({name: "the-value", "HOME": "/"})

    assert sentence.startswith(f"{name} is not a variable")
    assert "the-value" not in sentence
    assert sentence.endswith(f": {meant} was probably meant") is (meant is not None)


def test_what_is_known_or_of_others_is_no_mistake() -> None:
    of_kubernetes = {
        "MPESA_GATEWAY_API_SERVICE_HOST": "10.0.0.1",
        "MPESA_GATEWAY_API_SERVICE_PORT_HTTP": "80",
        "MPESA_GATEWAY_API_PORT_80_TCP_ADDR": "10.0.0.1",
        "MPESA_GATEWAY_API_PORT": "tcp://10.0.0.1:80",
    }
    known = dict.fromkeys([*KNOWN, "MPESA_OPERATOR_DRAIN", "MPESA_SIMULATOR_PORT", "PGHOST"], "x")

    assert unknown_variables({**known, **of_kubernetes}) == []
    assert len(unknown_variables({"MPESA_GATEWAY_API_PORT": "80"})) == 1
