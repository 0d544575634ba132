"""Clients that the usual generators make of the OpenAPI document make and read a payment.

They need Node.js, Go and the package registries: skipped without, unless MPESA_SNIPPETS=required
(`make test-snippets`).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daraja_simulator.settings import Settings
from harness.gateway import Gateway, Gateways
from harness.settings import API_KEY
from harness.snippets import program
from mpesa_gateway.api.openapi import document

CLIENTS = Path(__file__).parent / "clients"
OAPI_CODEGEN = "github.com/oapi-codegen/oapi-codegen/v2/cmd/oapi-codegen@v2.8.2"
OPENAPI_PYTHON_CLIENT = "openapi-python-client==0.29.1"
PATIENCE_S = 600

pytestmark = [
    pytest.mark.timeout(PATIENCE_S + 30),
    pytest.mark.skipif(
        os.environ.get("MPESA_SNIPPETS") != "required",
        reason="installs generators from package registries: make test-snippets",
    ),
]


@pytest.fixture(scope="module")
def gateway(gateways: Gateways) -> Iterator[Gateway]:
    """It calls no endpoint of theirs: pushes are accepted, and no callback comes."""
    with gateways.start(safaricom=Settings(callback_drop_rate=1.0)) as running:
        yield running


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The document, and the generators of npm, pinned."""
    directory = tmp_path_factory.mktemp("clients")
    (directory / "openapi.json").write_text(json.dumps(document()), "utf-8")
    for name in ("package.json", "client.ts", "run.mjs"):
        shutil.copy(CLIENTS / name, directory / name)
    run([program("npm"), "install", "--no-audit", "--no-fund", "--silent"], directory)
    return directory


def run(command: list[str], directory: Path, **env: str) -> str:
    done = subprocess.run(
        command,
        cwd=directory,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def npx(directory: Path, *words: str) -> str:
    name, *arguments = words
    return run([str(directory / "node_modules" / ".bin" / name), *arguments], directory)


def is_a_payment(gateway: Gateway, printed: str) -> bool:
    """What a client read is what the gateway knows."""
    transaction_id, amount, status = printed.split()[-3:]
    view = gateway.transaction(transaction_id)
    return (view["amount"], view["status"]) == (amount, status.rpartition(".")[2])


def test_typescript(gateway: Gateway, workshop: Path) -> None:
    npx(workshop, "openapi-typescript", "openapi.json", "--output", "schema.d.ts")
    options = ["--strict", "--target", "es2022", "--module", "nodenext", "--skipLibCheck"]
    npx(workshop, "tsc", *options, "client.ts")

    printed = run([program("node"), "run.mjs", gateway.url, API_KEY, str(uuid.uuid4())], workshop)
    assert is_a_payment(gateway, printed)


def test_go(gateway: Gateway, workshop: Path) -> None:
    directory = workshop / "go"
    directory.mkdir()
    (directory / "go.mod").write_text("module shop\n\ngo 1.24\n", "utf-8")
    shutil.copy(CLIENTS / "main.go.txt", directory / "main.go")
    generated = run(
        [program("go"), "run", OAPI_CODEGEN, "-generate", "types,client", "-package", "main",
         "../openapi.json"],
        directory, GOFLAGS="-mod=mod",
    )  # fmt: skip
    (directory / "client.go").write_text(generated, "utf-8")
    run([program("go"), "mod", "tidy"], directory)

    printed = run([program("go"), "run", ".", gateway.url, API_KEY, str(uuid.uuid4())], directory)
    assert is_a_payment(gateway, printed)


def test_python(gateway: Gateway, workshop: Path) -> None:
    directory = workshop / "python"
    directory.mkdir()
    run([sys.executable, "-m", "venv", "venv"], directory)
    python = str(directory / "venv" / "bin" / "python")
    # pip, as everywhere else here: it knows this machine's certificates and indexes.
    run([python, "-m", "pip", "install", "--quiet", OPENAPI_PYTHON_CLIENT], directory)
    run(
        [python, "-m", "openapi_python_client", "generate",
         "--path", "../openapi.json", "--output-path", "generated", "--meta", "none"],
        directory,
    )  # fmt: skip
    (directory / "generated").rename(directory / "mpesa_gateway_client")
    shutil.copy(CLIENTS / "pay.py.txt", directory / "pay.py")

    printed = run(
        [python, "pay.py", gateway.url, API_KEY, str(uuid.uuid4())],
        directory,
    )  # fmt: skip
    assert is_a_payment(gateway, printed)


def test_linters_find_no_error(workshop: Path) -> None:
    (workshop / ".spectral.yaml").write_text('extends: ["spectral:oas"]\n', "utf-8")

    npx(workshop, "redocly", "lint", "openapi.json")
    npx(workshop, "spectral", "lint", "openapi.json", "--fail-severity", "warn")


def test_a_postman_collection_is_generated_and_runs(gateway: Gateway, workshop: Path) -> None:
    npx(
        workshop, "openapi2postmanv2", "-s", "openapi.json", "-o", "collection.json",
        "-O", "folderStrategy=Tags,parametersResolution=Example",
    )  # fmt: skip
    collection = json.loads((workshop / "collection.json").read_text("utf-8"))
    (payments,) = [it for it in collection["item"] if it["name"] == "payments"]
    # A payment is made, and the list read; the rest needs an id that only this run knows.
    payments["item"] = [
        it for it in every_request(payments) if it["request"]["url"]["path"][-1] != "redeliver"
        and len(it["request"]["url"]["path"]) == 1
    ]  # fmt: skip
    for it in payments["item"]:
        it["request"]["url"]["query"] = []
    (workshop / "collection.json").write_text(json.dumps(collection), "utf-8")
    variables = ["--env-var", f"baseUrl={gateway.url}", "--env-var", f"apiKey={API_KEY}"]
    for folder in ("payments", "operations"):
        options = ["--folder", folder, "--reporters", "json", "--reporter-json-export", "run.json"]
        npx(workshop, "newman", "run", "collection.json", *variables, *options)
        executions = json.loads((workshop / "run.json").read_text("utf-8"))["run"]["executions"]
        codes = [it["response"]["code"] for it in executions]
        assert codes
        assert set(codes) <= {200, 201}, [it["item"]["name"] for it in executions]


def every_request(folder: dict[str, Any]) -> list[dict[str, Any]]:
    """The requests of a folder and of those in it."""
    found: list[dict[str, Any]] = []
    for it in folder["item"]:
        found += every_request(it) if "item" in it else [it]
    return found
