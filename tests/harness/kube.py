"""A namespace of a real cluster, through kubectl: the cluster of KUBECONFIG."""

from __future__ import annotations

import base64
import json
import re
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from harness import shell

FORWARD_TIMEOUT_S = 20.0
Object = dict[str, Any]


@dataclass(frozen=True)
class Kube:
    """kubectl in one namespace."""

    namespace: str

    def run(self, *arguments: str, stdin: str = "", timeout_s: float = 120.0) -> str:
        """What kubectl says. Fails with its complaint."""
        return shell.output(
            "kubectl", "--namespace", self.namespace, *arguments, stdin=stdin, timeout_s=timeout_s
        )

    def make_namespace(self, *, restricted: bool = False) -> None:
        """The namespace; `restricted` pods only, as platforms ask for."""
        labels = {"pod-security.kubernetes.io/enforce": "restricted"} if restricted else {}
        metadata = {"name": self.namespace, "labels": labels}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})

    def delete_namespace(self) -> None:
        """And all that is in it."""
        self.run("delete", "namespace", self.namespace, "--timeout=120s", timeout_s=130)

    def get(self, kind: str, name: str) -> Object:
        """The object."""
        found: Object = json.loads(self.run("get", kind, name, "--output=json"))
        return found

    def find(self, kind: str, name: str) -> Object | None:
        """The object, None when there is none."""
        text = self.run("get", kind, name, "--output=json", "--ignore-not-found")
        return json.loads(text) if text else None

    def find_all(self, kind: str, **labels: str) -> list[Object]:
        """The objects with these labels, by component, instance and so on."""
        selector = ",".join(f"app.kubernetes.io/{name}={value}" for name, value in labels.items())
        text = self.run("get", kind, f"--selector={selector}", "--output=json")
        return [dict(it) for it in json.loads(text)["items"]]

    def apply(self, *objects: Object) -> None:
        """Create or change them."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.run("apply", "--filename=-", stdin=json.dumps(items))

    def patch(self, kind: str, name: str, change: Object) -> None:
        """A merge patch."""
        self.run("patch", kind, name, "--type=merge", f"--patch={json.dumps(change)}")

    def secret(self, name: str) -> dict[str, str]:
        """What a Secret holds, decoded."""
        data = self.get("secret", name).get("data", {})
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    def execute(self, target: str, *command: str, stdin: str = "") -> str:
        """What a command says that runs in a pod, such as `deployment/api`."""
        return self.run("exec", "--stdin", target, "--", *command, stdin=stdin)

    def pods(self, instance: str, component: str) -> list[Object]:
        """The pods of a component that are not being deleted."""
        found = self.find_all("pods", instance=instance, component=component)
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    @contextmanager
    def forward(self, target: str, port: int) -> Iterator[str]:
        """A URL on this machine that reaches the port, such as that of `service/api`."""
        process = subprocess.Popen(
            [
                *("kubectl", "--namespace", self.namespace, "port-forward"),
                *("--address=127.0.0.1", target, f":{port}"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield f"http://127.0.0.1:{_forwarded_port(process)}"
        finally:
            process.terminate()
            process.wait(timeout=10)
            assert process.stdout is not None
            process.stdout.close()


def _forwarded_port(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    give_up, said = time.monotonic() + FORWARD_TIMEOUT_S, ""
    while time.monotonic() < give_up and process.poll() is None:
        if select.select([process.stdout], [], [], 0.2)[0]:
            said += process.stdout.readline()
            if match := re.search(r"127\.0\.0\.1:(\d+) ->", said):
                return int(match[1])
    raise AssertionError(f"kubectl port-forward did not begin: {said}")
