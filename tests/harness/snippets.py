"""The fenced blocks of the docs, and a way to run a function of theirs in its own language.

Each language gets a small driver around the function: it reads one case a line (secret, headers and
body, each in base64, separated by spaces) and prints `accepted` or `refused` for each.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)

_PYTHON = """
import base64, sys
for line in sys.stdin:
    secret, headers, body = (base64.b64decode(it) for it in line.split(" "))
    pairs = dict(it.split(": ", 1) for it in headers.decode().split("\\n") if it)
    try:
        verify_webhook(secret.decode(), pairs, body)
    except ValueError:
        print("refused")
    else:
        print("accepted")
"""
_JAVASCRIPT = """
for (const line of require("node:fs").readFileSync(0, "utf8").split("\\n").filter(Boolean)) {
  const [secret, headers, body] = line.split(" ").map((it) => Buffer.from(it, "base64"));
  const lines = headers.toString().split("\\n").filter(Boolean);
  const pairs = Object.fromEntries(lines.map((it) => it.split(": ", 2)));
  let verdict = "accepted";
  try { verifyWebhook(secret.toString(), pairs, body); } catch { verdict = "refused"; }
  console.log(verdict);
}
"""
_PHP = """
while (($line = fgets(STDIN)) !== false) {
    [$secret, $headers, $body] = array_map('base64_decode', explode(' ', trim($line, "\\n")));
    $pairs = [];
    foreach (array_filter(explode("\\n", $headers)) as $header) {
        [$name, $value] = explode(': ', $header, 2);
        $pairs[$name] = $value;
    }
    try { verify_webhook($secret, $pairs, $body); echo "accepted\\n"; }
    catch (InvalidArgumentException) { echo "refused\\n"; }
}
"""
_JAVA = """
class Driver {
    public static void main(String[] arguments) throws Exception {
        var input = new java.io.BufferedReader(new java.io.InputStreamReader(System.in));
        for (String line; (line = input.readLine()) != null; ) {
            String[] parts = line.split(" ", -1);
            var decoder = Base64.getDecoder();
            Map<String, String> headers = new java.util.HashMap<>();
            for (String header : new String(decoder.decode(parts[1])).split("\\n")) {
                int colon = header.indexOf(": ");
                if (colon > 0) headers.put(header.substring(0, colon), header.substring(colon + 2));
            }
            try {
                WebhookVerifier.verifyWebhook(
                    new String(decoder.decode(parts[0])), headers, decoder.decode(parts[2]));
                System.out.println("accepted");
            } catch (GeneralSecurityException error) {
                System.out.println("refused");
            }
        }
    }
}
"""
_GO = """package main

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"os"
	"strings"
)

func main() {
	input := bufio.NewScanner(os.Stdin)
	input.Buffer(nil, 1<<20)
	for input.Scan() {
		var parts [3][]byte
		for i, it := range strings.Split(input.Text(), " ") {
			parts[i], _ = base64.StdEncoding.DecodeString(it)
		}
		headers := map[string]string{}
		for _, header := range strings.Split(string(parts[1]), "\\n") {
			if name, value, found := strings.Cut(header, ": "); found {
				headers[name] = value
			}
		}
		if VerifyWebhook(string(parts[0]), headers, parts[2]) == nil {
			fmt.Println("accepted")
		} else {
			fmt.Println("refused")
		}
	}
}
"""


@dataclass(frozen=True)
class Case:
    """One webhook as it arrived."""

    secret: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def line(self) -> str:
        """As the drivers read it. The header `x-signature` is there too, to tempt them."""
        headers = "".join(f"{name}: {value}\n" for name, value in self.headers.items())
        parts = (self.secret.encode(), headers.encode(), self.body)
        return " ".join(base64.b64encode(it).decode() for it in parts)


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page of docs/ in that language."""
    text = (DOCS / page).read_text("utf-8")
    return [block for found, block in _BLOCK.findall(text) if found == language]


def program(name: str) -> str:
    """Where a language's program is. Skips without it, unless MPESA_SNIPPETS=required."""
    found = shutil.which(name)
    if found is None and os.environ.get("MPESA_SNIPPETS") == "required":
        pytest.fail(f"{name} is needed to run the docs' snippets (scripts/languages installs it)")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def verdicts(language: str, snippet: str, cases: Sequence[Case], directory: Path) -> list[str]:
    """What the snippet says of each case: `accepted` or `refused`."""
    command, files = _program(language, snippet)
    for name, content in files.items():
        (directory / name).write_text(content, "utf-8")
    done = subprocess.run(
        command,
        cwd=directory,
        input="".join(f"{case.line}\n" for case in cases),
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        env={**os.environ, "GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local"},
    )
    assert done.returncode == 0, f"{language}: {done.stdout}\n{done.stderr}"
    return done.stdout.split()


def _program(language: str, snippet: str) -> tuple[list[str], dict[str, str]]:
    if language == "python":
        # As in production, where a check that is an `assert` is gone.
        return [sys.executable, "-O", "verify.py"], {"verify.py": snippet + _PYTHON}
    if language == "javascript":
        return [program("node"), "verify.js"], {"verify.js": snippet + _JAVASCRIPT}
    if language == "php":
        return [program("php"), "verify.php"], {"verify.php": snippet + _PHP}
    if language == "java":
        # The class that is run stands first; imports stand before all classes.
        at = snippet.index("final class")
        return [program("java"), "Verify.java"], {
            "Verify.java": snippet[:at] + _JAVA + snippet[at:]
        }
    assert language == "go", language
    module = "module shop\n\ngo 1.20\n"
    files = {"go.mod": module, "verify.go": snippet, "main.go": _GO}
    return [program("go"), "run", "."], files


def as_json(case: Case) -> str:
    """For a failed assertion."""
    return json.dumps({"headers": dict(case.headers), "body": case.body.decode("utf-8", "replace")})
