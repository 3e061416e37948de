"""The definitions of operators' objects: their own, out of their Go modules, with every rule that the API server enforces.

What no Go module has comes from CRDS (a directory of CustomResourceDefinitions), or is made from the schemas of
CRD_SCHEMAS. Of Gatekeeper and Strimzi, where neither has them, kinds without a schema stand in.
"""

import json
import os
import pathlib
import subprocess

import yaml

from checks import LOADER, custom, wait_for

# Module and version, and the files in it.
MODULES = {
    "github.com/kedacore/keda/v2@v2.21.0": ["config/crd/bases/keda.sh_scaledobjects.yaml", "config/crd/bases/keda.sh_triggerauthentications.yaml"],
    "github.com/aws/karpenter-provider-aws@v1.14.1": ["pkg/apis/crds/karpenter.sh_nodepools.yaml", "pkg/apis/crds/karpenter.k8s.aws_ec2nodeclasses.yaml"],
    "github.com/cilium/cilium@v1.20.2": ["pkg/k8s/apis/cilium.io/client/crds/v2/ciliumnetworkpolicies.yaml"],
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": [
        f"example/prometheus-operator-crd/monitoring.coreos.com_{kind}.yaml" for kind in ("podmonitors", "servicemonitors", "prometheusrules")],
    "sigs.k8s.io/gateway-api@v1.5.1": [f"config/crd/standard/gateway.networking.k8s.io_{kind}.yaml" for kind in ("httproutes", "grpcroutes")],
    "github.com/cert-manager/cert-manager@v1.21.2": ["deploy/crds/cert-manager.io_certificates.yaml"],
    "github.com/aws/amazon-vpc-resource-controller-k8s@v1.8.2": ["config/crd/bases/vpcresources.k8s.aws_securitygrouppolicies.yaml"],
    "sigs.k8s.io/external-dns@v0.21.0": ["config/crd/standard/dnsendpoints.externaldns.k8s.io.yaml"],
    "github.com/spiffe/spire-controller-manager@v0.6.3": ["config/crd/bases/spire.spiffe.io_clusterspiffeids.yaml"],
    "sigs.k8s.io/secrets-store-csi-driver@v1.6.0": ["config/crd/bases/secrets-store.csi.x-k8s.io_secretproviderclasses.yaml"],
}
# Kinds of AWS' controllers that no Go module brings: group, version, kind, plural, of a namespace.
OF_SCHEMAS = [
    ("aga.k8s.aws", "v1beta1", "GlobalAccelerator", "globalaccelerators", True),
    ("eks.services.k8s.aws", "v1alpha1", "PodIdentityAssociation", "podidentityassociations", True),
]
ANYTHING = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
STAND_INS = [("kafka.strimzi.io", "v1", "KafkaTopic", "kafkatopics", True)] + [
    ("constraints.gatekeeper.sh", "v1beta1", kind, kind.lower(), False)
    for kind in ("K8sRequiredProbes", "K8sDisallowedTags", "K8sPSPHostNamespace", "K8sRequiredResources", "K8sPSPReadOnlyRootFilesystem", "K8sPSPAllowPrivilegeEscalationContainer")]


def of_module(module, files):
    done = subprocess.run(["go", "mod", "download", "-json", module], capture_output=True, text=True, env=os.environ | {"GOFLAGS": "-mod=mod"})
    found = json.loads(done.stdout or "{}")
    if "Dir" not in found:
        raise RuntimeError(f"{module}: {found.get('Error', done.stderr)}")
    for file in files:
        yield from read(pathlib.Path(found["Dir"]) / file)


def read(path):
    for item in yaml.load_all(path.read_text(encoding="utf-8"), Loader=LOADER):
        if item and item["kind"] == "CustomResourceDefinition":
            yield item


def definition(group, version, kind, plural, namespaced, schema):
    return {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": f"{plural}.{group}"}, "spec": {
        "group": group, "names": {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()}, "scope": "Namespaced" if namespaced else "Cluster",
        "versions": [{"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}]}}


def structural(node):
    """A schema as the API server takes it: unknown fields are refused by its strict mode, not by the schema."""
    if isinstance(node, dict):
        return {key: structural(value) for key, value in node.items() if not (key == "additionalProperties" and value is False)}
    return [structural(part) for part in node] if isinstance(node, list) else node


def of_schema(group, version, kind, plural, namespaced):
    directory = custom.directory()
    path = directory / group / f"{kind.lower()}_{version}.json" if directory else None
    schema = structural(json.loads(path.read_text(encoding="utf-8"))) if path and path.exists() else {"type": "object", "properties": {"spec": ANYTHING}}
    schema["properties"]["metadata"] = {"type": "object"}
    return definition(group, version, kind, plural, namespaced, schema)


def bare(item):
    """Without what asks for a webhook that nobody answers, or belongs to a server that approves it."""
    item["spec"].pop("conversion", None)
    item.pop("status", None)
    return item


def collected():
    """All definitions by name, and the names of those that are stand-ins."""
    found = {}
    for more in sorted(pathlib.Path(os.environ["CRDS"]).rglob("*.yaml")) if os.environ.get("CRDS") else []:
        found |= {item["metadata"]["name"]: item for item in read(more)}
    for module, files in MODULES.items():
        found |= {item["metadata"]["name"]: item for item in of_module(module, files)}
    for one in OF_SCHEMAS:
        made = of_schema(*one)
        found.setdefault(made["metadata"]["name"], made)
    stand_ins = set()
    for one in STAND_INS:
        made = definition(*one, {"type": "object", "properties": {"spec": ANYTHING}})
        if found.setdefault(made["metadata"]["name"], made) is made:
            stand_ins.add(made["metadata"]["name"])
    return found, stand_ins


def install(api):
    """Creates all of them and waits until the server serves them. Gives how many there are, and the stand-ins."""
    found, stand_ins = collected()
    api.discover()
    for item in found.values():
        api.create(bare(item))

    def served(name):
        item = api.get(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}")
        return any(c["type"] == "Established" and c["status"] == "True" for c in item.get("status", {}).get("conditions", []))

    for name in found:
        wait_for(f"the definition {name}", lambda: served(name))
    return len(found), stand_ins
