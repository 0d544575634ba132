"""A real etcd and API server of the tests' own: no node, no controllers, nobody else's objects."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme
import yaml

from harness.waiting import wait_for
from mpesa_devkit.processes import Process, free_port

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "mpesa-gateway"
CRD = CHART / "files" / "crds" / "merchantconfigs.yaml"
ADMIN_TOKEN = "admin-of-the-tests"
COMMANDS = ("etcd", "kube-apiserver", "helm")
KUBE_VERSION = "1.34"
GROUP_PATH = "/apis/mpesa-gateway.dev/v1alpha1"
Json = dict[str, Any]


def find_command(name: str) -> str | None:
    """A command on PATH, or where the usual variable of such tests says."""
    assets = os.environ.get("KUBEBUILDER_ASSETS", "")
    return shutil.which(name) or shutil.which(name, path=assets or os.devnull)


def need_commands() -> None:
    """Skip, or fail where these tests are required, when a command is missing."""
    missing = [command for command in COMMANDS if find_command(command) is None]
    if not missing:
        return
    sentence = f"neither on PATH nor in KUBEBUILDER_ASSETS: {', '.join(missing)}"
    if os.environ.get("MPESA_CLUSTER_TESTS") == "required":
        pytest.fail(sentence)
    pytest.skip(sentence)


class RefusedError(Exception):
    """The API server did not do it; `status` is the HTTP status."""

    def __init__(self, answer: requests.Response) -> None:
        self.status = answer.status_code
        super().__init__(f"{answer.status_code}: {answer.text}")


class Kube:
    """Plain REST calls as one user."""

    def __init__(self, url: str, ca: Path, token: str) -> None:
        self.url, self.ca, self.token = url, ca, token
        self.session = requests.Session()
        # Variables of the machine (REQUESTS_CA_BUNDLE) would beat the CA given here.
        self.session.trust_env = False
        self.session.verify = str(ca)
        self.session.headers["Authorization"] = f"Bearer {token}"

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Json:
        names = {"Content-Type": "application/json", **headers}
        answer = self.session.request(method, self.url + path, json=body, headers=names, timeout=30)
        if answer.status_code >= 400:
            raise RefusedError(answer)
        document: Json = answer.json()
        return document

    def get(self, path: str) -> Json:
        return self.call("GET", path)

    def find(self, path: str) -> Json | None:
        try:
            return self.get(path)
        except RefusedError as error:
            if error.status == 404:
                return None
            raise

    def create(self, path: str, body: Json) -> Json:
        return self.call("POST", path, body)

    def patch(self, path: str, body: Json) -> Json:
        return self.call("PATCH", path, body, **{"Content-Type": "application/merge-patch+json"})

    def delete(self, path: str) -> Json:
        return self.call("DELETE", path)

    def apply(self, path: str, body: Json) -> Json:
        """Server-side apply."""
        where = f"{path}?fieldManager=tests&force=true"
        kind = {"Content-Type": "application/apply-patch+yaml"}
        return self.call("PATCH", where, body, **kind)

    def namespace(self, name: str) -> str:
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        self.create("/api/v1/namespaces", body)
        return name

    def raw(self, path: str) -> str:
        answer = self.session.get(self.url + path, timeout=30)
        answer.raise_for_status()
        return answer.text


class ApiServer:
    """etcd and kube-apiserver on free ports, with their own certificates."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.ca = directory / "ca.pem"
        self._processes: dict[str, Process] = {}
        self._etcd_port = free_port()
        self._write_certificates()
        self.admin = Kube(self.url, self.ca, ADMIN_TOKEN)

    def _write_certificates(self) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.ca))
        leaf = authority.issue_cert("127.0.0.1", "localhost")
        leaf.private_key_pem.write_to_path(str(self.directory / "server.key"))
        leaf.cert_chain_pems[0].write_to_path(str(self.directory / "server.pem"))
        signer = authority.issue_cert("service-accounts", key_type=trustme.KeyType.RSA)
        signer.private_key_pem.write_to_path(str(self.directory / "signer.key"))
        tokens = f'{ADMIN_TOKEN},admin,admin,"system:masters"\n'
        (self.directory / "tokens.csv").write_text(tokens)

    def start(self) -> None:
        self._start_etcd()
        self.start_server()

    def _start_etcd(self) -> None:
        client, peer = f"http://127.0.0.1:{self._etcd_port}", f"http://127.0.0.1:{free_port()}"
        self._run(
            "etcd",
            *(f"--data-dir={self.directory / 'etcd'}", "--unsafe-no-fsync", "--log-level=error"),
            *(f"--listen-client-urls={client}", f"--advertise-client-urls={client}"),
            *(f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"),
            f"--initial-cluster=default={peer}",
        )

    def start_server(self) -> None:
        files = self.directory
        self._run(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
            *("--bind-address=127.0.0.1", f"--secure-port={self.port}"),
            f"--tls-cert-file={files / 'server.pem'}",
            f"--tls-private-key-file={files / 'server.key'}",
            f"--cert-dir={files / 'certificates'}",
            f"--token-auth-file={files / 'tokens.csv'}",
            "--service-account-issuer=https://tests.invalid",
            f"--service-account-key-file={files / 'signer.key'}",
            f"--service-account-signing-key-file={files / 'signer.key'}",
            *("--authorization-mode=RBAC", "--service-cluster-ip-range=10.96.0.0/24"),
            # No controller makes the default service account that pods would need.
            "--disable-admission-plugins=ServiceAccount",
            "--endpoint-reconciler-type=none",
            *(f"--audit-policy-file={self._audit_policy()}", f"--audit-log-path={self.audit_log}"),
        )
        process = self._processes["kube-apiserver"]
        process.wait_until(self.is_ready, timeout_s=90)

    @property
    def audit_log(self) -> Path:
        return self.directory / "audit.log"

    def _audit_policy(self) -> Path:
        """What service accounts do with Secrets is written down: verb and name, no content."""
        rules = [
            {
                "level": "Metadata",
                "userGroups": ["system:serviceaccounts"],
                "resources": [{"group": "", "resources": ["secrets"]}],
            },
            {"level": "None"},
        ]
        body = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": rules}
        path = self.directory / "audit-policy.yaml"
        path.write_text(yaml.safe_dump({**body, "omitStages": ["RequestReceived"]}))
        return path

    def secret_calls(self, namespace: str) -> list[str]:
        """Verb and name of every call of a service account about a namespace's Secrets."""
        events = (json.loads(line) for line in self.audit_log.read_text().splitlines())
        found = (it for it in events if it["objectRef"].get("namespace") == namespace)
        return [f"{it['verb']} {it['objectRef'].get('name', '*')}" for it in found]

    def _run(self, name: str, *arguments: str) -> None:
        path = find_command(name)
        assert path is not None, name
        log = self.directory / f"{name}.log"
        self._processes[name] = Process(name, [path, *arguments], log=log, env=dict(os.environ))

    def is_ready(self) -> bool:
        try:
            return self.admin.raw("/readyz") == "ok"
        except requests.exceptions.SSLError:
            raise  # It runs, and will never be believed.
        except requests.RequestException:
            return False

    def stop_server(self) -> None:
        self._processes["kube-apiserver"].stop()

    def stop(self) -> None:
        for name in ("kube-apiserver", "etcd"):
            if name in self._processes and self._processes[name].is_running():
                self._processes[name].stop()
        self.admin.session.close()

    def install_crd(self) -> None:
        """The CRD, until objects of its kind can be listed."""
        body = yaml.safe_load(CRD.read_text())
        self.admin.apply(
            f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{body['metadata']['name']}",
            body,
        )
        wait_for(
            lambda: self.admin.find(f"{GROUP_PATH}/merchantconfigs") is not None,
            timeout_s=30,
            what="the CRD to be served",
        )

    def kubeconfig(self, path: Path, token: str, url: str | None = None) -> Path:
        """A kubeconfig of one user."""
        cluster = {"server": url or self.url, "certificate-authority": str(self.ca)}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "tests", "cluster": cluster}],
            "users": [{"name": "user", "user": {"token": token}}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "user"}}],
            "current-context": "tests",
        }
        path.write_text(yaml.safe_dump(document))
        path.chmod(0o600)
        return path


@contextmanager
def api_server(directory: Path) -> Iterator[ApiServer]:
    """A running API server with the CRD."""
    server = ApiServer(directory)
    try:
        server.start()
        server.install_crd()
        yield server
    finally:
        server.stop()


def render(release: str, namespace: str, template: str, values: Mapping[str, Any]) -> list[Json]:
    """The objects of one of the chart's templates."""
    command = ["helm", "template", release, str(CHART), "--namespace", namespace]
    command += ["--kube-version", KUBE_VERSION, "--show-only", template, "--values", "-"]
    done = subprocess.run(
        command, input=yaml.safe_dump(dict(values)), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [body for body in yaml.safe_load_all(done.stdout) if body]


def rbac_path(body: Json) -> str:
    """Where an object of RBAC, or of admission, stands."""
    kinds = {
        "Role": "roles",
        "RoleBinding": "rolebindings",
        "ClusterRole": "clusterroles",
        "ClusterRoleBinding": "clusterrolebindings",
        "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
        "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
    }
    meta = body["metadata"]
    inner = f"/namespaces/{meta['namespace']}" if "namespace" in meta else ""
    base = f"/apis/{body['apiVersion']}{inner}"
    return f"{base}/{kinds[body['kind']]}/{meta['name']}"


def service_account_token(kube: Kube, namespace: str, name: str) -> str:
    """A token of a service account, made when it does not exist."""
    base = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    if kube.find(f"{base}/{name}") is None:
        meta = {"name": name, "namespace": namespace}
        kube.create(base, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    token: str = kube.create(f"{base}/{name}/token", request)["status"]["token"]
    return token
