"""A control plane of Kubernetes as processes on loopback: etcd, API server, controllers and scheduler."""

import os
import pathlib
import subprocess

import yaml

from checks import Failure, wait_for
from checks.bootstrap import free_port

from .api import Api

TOKEN = "an-administrator-of-this-run"
# Nodes here have no kubelet that renews a lease.
CONTROLLERS = "*,-node-lifecycle-controller,-taint-eviction-controller,-node-ipam-controller"


class ControlPlane:
    """Runs the programs of a directory, and ends them by their process ids."""

    def __init__(self, programs, etcd, scratch):
        self.programs, self.etcd, self.scratch = programs, etcd, pathlib.Path(scratch)
        self.running = []

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def start(self):
        store, peers, self.port = (free_port() for _ in range(3))
        self.run("etcd", [self.etcd, "--data-dir", self.scratch / "etcd", "--listen-client-urls", f"http://127.0.0.1:{store}",
                          "--advertise-client-urls", f"http://127.0.0.1:{store}", "--listen-peer-urls", f"http://127.0.0.1:{peers}",
                          "--initial-advertise-peer-urls", f"http://127.0.0.1:{peers}", "--initial-cluster", f"default=http://127.0.0.1:{peers}"])
        key = self.scratch / "accounts.key"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        tokens = self.scratch / "tokens.csv"
        tokens.write_text(f"{TOKEN},administrator,1,system:masters\n", encoding="utf-8")
        self.run("kube-apiserver", [
            self.programs / "kube-apiserver", f"--etcd-servers=http://127.0.0.1:{store}", "--bind-address=127.0.0.1", f"--secure-port={self.port}",
            "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none", f"--cert-dir={self.scratch / 'certificates'}", f"--token-auth-file={tokens}", "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.96.0.0/16", "--service-account-issuer=https://kubernetes.default.svc", "--allow-privileged=true",
            f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}"])
        self.kubeconfig = self.scratch / "kubeconfig"
        self.api = Api(self.port, TOKEN, self.scratch / "certificates/apiserver.crt")
        wait_for("the API server", lambda: self.alive() and self.api.is_ready())
        self.kubeconfig.write_text(yaml.safe_dump({
            "apiVersion": "v1", "kind": "Config", "current-context": "here", "contexts": [{"name": "here", "context": {"cluster": "here", "user": "here"}}],
            "clusters": [{"name": "here", "cluster": {"server": f"https://127.0.0.1:{self.port}", "certificate-authority": str(self.api.authority)}}],
            "users": [{"name": "here", "user": {"token": TOKEN}}]}), encoding="utf-8")
        shared = [f"--kubeconfig={self.kubeconfig}", "--leader-elect=false", "--secure-port=0"]
        self.run("kube-controller-manager", [self.programs / "kube-controller-manager", *shared, f"--controllers={CONTROLLERS}", f"--service-account-private-key-file={key}"])
        self.run("kube-scheduler", [self.programs / "kube-scheduler", *shared])
        wait_for("the controllers", lambda: self.alive() and self.api.has("/api/v1/namespaces/default/serviceaccounts/default"))

    def run(self, name, command):
        with open(self.scratch / f"{name}.log", "w", encoding="utf-8") as log:
            process = subprocess.Popen(list(map(str, command)), stdout=log, stderr=subprocess.STDOUT, env=os.environ | {"HOME": str(self.scratch)})
        self.running.append((name, process))

    def alive(self):
        for name, process in self.running:
            if process.poll() is not None:
                raise Failure(f"{name} ended: " + (self.scratch / f"{name}.log").read_text(encoding="utf-8")[-600:])
        return True

    def __exit__(self, *_):
        for _, process in reversed(self.running):
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
