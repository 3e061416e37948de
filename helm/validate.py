"""The checks of helm/validate.sh: one line each, then the sum. `--write` renews the README, the schema's
descriptions and the golden files."""

import argparse
import functools
import pathlib
import shutil
import sys
import tempfile

from kubernetes_validate import utils

from checks import CHART, Failure, Helm, admission, alerts, binaries, bootstrap, budgets, certificates, compose
from checks import custom, docs, edge, gatekeeper, golden, hooks, images, need, network, objects, observed, one_line, promises
from checks import refusals, rendered, sets, settings, topics, upgrade

KUBERNETES = [f"1.{minor}" for minor in range(28, 38)]


class Checks:
    """Runs checks, prints one line for each and counts."""

    def __init__(self):
        self.passed = self.failed = 0
        self.names = set()

    def run(self, name, check, *arguments):
        self.names.add(name)
        try:
            result = check(*arguments)
        except Exception as error:  # A check that breaks has not passed, and the rest still counts.
            self.failed += 1
            kind = "" if isinstance(error, Failure) else f"{type(error).__name__}: "
            print(f"FAIL {name}: {kind}{one_line(str(error))}", flush=True)
            return None
        self.passed += 1
        print(f"ok   {name}", flush=True)
        return result


def check_helm(checks, helm, value_sets):
    for name, values in value_sets.items():
        arguments = [part for file in values for part in ("--values", file)]

        def lint():
            code, out, err = helm.run("lint", "--strict", CHART, *arguments)
            need(code == 0, one_line(out + err))

        checks.run(f"{helm.name}: lint --strict, {name}", lint)
    for what, sets, expected in refusals.BY_SCHEMA:
        checks.run(f"{helm.name}: schema refuses {what}", helm.refuses, sets, expected)


def check_value_set(checks, helms, name, values, options, file, scratch):
    text = checks.run(f"{name}: helm 4 renders", helms[0].template, values)
    if text is None:
        return
    checks.run(f"{name}: a second render is the same", lambda: need(helms[0].template(values) == text, "it differs"))
    # For one Kubernetes: each helm takes another for granted.
    old, new = (helm.template(values, kubernetes=KUBERNETES[-1]) for helm in (helms[1], helms[0]))
    checks.run(f"{name}: helm 3 renders the same", lambda: need(old == new, "it differs"))
    items = objects(text)
    for what, check in [
        ("no object twice", rendered.no_duplicates),
        ("pods are restricted, bounded and probed", rendered.pods_are_restricted),
        ("selectors, ports and files meet", rendered.selectors_meet),
        ("drains outlast the health check", rendered.drain_outlasts_health_check),
        ("policies admit ports that containers have", network.containers_listen),
        ("no secret stands in an object", sets.no_secret_is_rendered),
    ]:
        checks.run(f"{name}: {what}", check, items)
    if name in sets.PROMISES:
        checks.run(f"{name}: keeps what the set promises", sets.PROMISES[name], items)
    if custom.directory():
        checks.run(f"{name}: schemas of operators' objects", custom.valid, items, custom.directory())
    bootstrap.secrets_of(items, scratch)
    file.write_text(bootstrap.with_certificates(bootstrap.bootstrap_of(items), scratch), encoding="utf-8")
    checks.run(f"{name}: Envoy accepts its bootstrap", bootstrap.envoy_accepts, options.envoy, file)
    checks.run(f"{name}: our programs take their configurations", binaries.take_it, items, binaries.Here(options.programs, scratch / "machine"))
    for version in KUBERNETES:
        checks.run(f"{name}: strict schemas of Kubernetes {version}", strict, helms[0], values, version)


def strict(helm, values, version):
    rendered.strict_schemas(objects(helm.template(values, kubernetes=version)), version)


def check_flows(checks, helm, value_sets):
    default, full = objects(helm.template()), objects(helm.template(value_sets["full"]))
    checks.run("Envoy's upstreams are Services of the release", rendered.envoy_reaches, default)
    for flavour in ("kubernetes", "cilium"):
        rendered_so = objects(helm.template(sets=[f"networkPolicy.flavour={flavour}"]))
        checks.run(f"{flavour} policies admit the flows of Envoy's configuration and no others", network.matrix, rendered_so)
    checks.run("policies admit every address that settings name", network.outside, helm)
    checks.run("peers of values mean the same to Cilium", network.peers_in_ciliums_words, helm)
    checks.run("scrapes see one page, with Cilium", network.scrapes_see_one_page, helm)
    checks.run("a user's egress rule is in both flavours", network.extra_egress, helm)
    checks.run("default-deny-all is as specified", network.default_deny_is_exact, full)
    checks.run("the break-glass listener is off by default", network.break_glass, default, False)
    checks.run("the break-glass listener is open to its peers alone", network.break_glass, full, True)


def check_edge(checks, helm, value_sets):
    production = objects(helm.template(value_sets["prod-eks"]))
    for what, check in [
        ("the ALB", edge.alb), ("the ALB of partners", edge.private), ("the accelerator and its name", edge.accelerator),
        ("KEDA's sums", edge.scaling), ("Karpenter's nodes", edge.nodes), ("secrets that AWS keeps", edge.stored_secrets),
    ]:
        checks.run(f"prod-eks: {what}", check, production)
    checks.run("no-aws: routes of the Gateway API", edge.routes, objects(helm.template(value_sets["no-aws"])))
    for what, check in [
        ("Envoy trusts the hops that there are", edge.hops), ("an NLB keeps the clients' addresses", edge.nlb),
        ("names in DNS", edge.names_in_dns), ("the lag is asked of whom the values say", edge.lag), ("priority classes are on every pod", edge.classes),
        ("roles by IRSA and Pod Identity", edge.identity),
    ]:
        checks.run(what, check, helm)


def check_certificates(checks, helm, value_sets):
    encrypted = objects(helm.template(value_sets["tls"]))
    for what, check in [("bear the names that are asked for", certificates.names), ("are in the Secrets that are mounted", certificates.secrets), ("encrypt the ALB's hop", certificates.edge)]:
        checks.run(f"certificates {what}", check, encrypted)
    of_spire = objects(helm.template(value_sets["spire"]))
    checks.run("SPIRE gives the names that are asked for", certificates.spires, of_spire)
    checks.run("SPIRE's agent is asked by clients, too", certificates.spires_clients, helm, of_spire)
    checks.run("certificates encrypt the way to the collector", certificates.collector, helm, value_sets["tls"])
    checks.run("nothing asks for certificates by default", certificates.off, helm)


def check_gates(checks, helm, value_sets, options, scratch):
    full = objects(helm.template(value_sets["full"]))
    checks.run("the admission policy passes our pods and refuses what breaks each rule", admission.policy, full)
    if gatekeeper.at_hand():
        checks.run("Gatekeeper's own templates do the same", gatekeeper.passed_and_refused, full, gatekeeper.at_hand(), scratch / "gatekeeper.yaml")
    for what, check in [
        ("another Job makes other topics", topics.another_job_for_another_topic), ("the Job of topics reaches brokers alone", topics.jobs_network),
        ("Strimzi would make the same topics", topics.strimzis),
    ]:
        checks.run(what, check, helm)
    for what, check, *arguments in [
        ("broken quotas stop an upgrade", hooks.broken_quotas_stop_an_upgrade, options.programs, scratch / "hooks"),
        ("a trap in the bootstrap stops an upgrade", hooks.broken_bootstraps_stop_an_upgrade, options.programs, scratch / "hooks"),
        ("the check knows quotas that are elsewhere", hooks.without_files),
    ]:
        checks.run(what, check, helm, *arguments)


def check_observed(checks, helm, programs, scratch):
    checks.run("each alert fires where it should and rests where it should", alerts.fire_and_rest, helm, scratch)
    checks.run("each alert has a runbook", alerts.runbooks, helm)
    checks.run("labels and links of alerts are values", alerts.keys_of_values, helm)
    checks.run("dashboards are in step with dashboards.py", observed.in_step)
    checks.run("metrics in rules and dashboards are documented", observed.are_documented, helm)
    checks.run("every panel has data from the real edge, helm test passes there, and the Job makes topics", observed.panels_return_data, helm, programs, scratch / "observed")


def check_rules(checks, helm, value_sets, programs, scratch):
    for what, sets, expected in refusals.BY_RULE:
        checks.run(f"templates refuse {what}", helm.refuses, sets, expected)
    for what, sets, expected in [
        ("quotas restarts nothing", ["ratelimit.quotas.a\\.yaml=domain: a"], set()),
        ("ext-authz.yaml restarts ext-authz alone", ["extAuthz.config.log_level=debug"], {"ext-authz"}),
        ("the journal restarts gateway and writer", ["ingest.journal.kafka.topic=t"], {"gateway", "writer"}),
        ("classes restarts those that are told of them", [refusals.quotas("gold: {outage: bypass}")], {"envoy", "ext-authz"}),
        ("the bootstrap restarts Envoy alone", ["envoy.perAddress.burst=5"], {"envoy"}),
    ]:
        checks.run(f"a change of {what}", rendered.restarts, helm, sets, expected)
    for what, sets, expected in rendered.CLASSES:
        checks.run(f"Envoy and ext-authz know {what}", rendered.classes_reach_envoy, helm, sets, expected)
    checks.run("Envoy reports what quotas may limit", rendered.charges_what_quotas_limit, helm)
    checks.run("a digest wins over a tag, the global registry over all", rendered.digest_wins, helm)
    checks.run("budgets follow the limits", budgets.derived, helm)
    checks.run("Envoy's heap and threads follow its limits", budgets.envoys_heap, helm)
    checks.run("a login with a token is taken", binaries.login_with_a_token, helm, programs, scratch / "token")
    checks.run("rules of tenants reach the gateway", binaries.rules_of_tenants, helm, value_sets, programs, scratch / "rules")
    checks.run("large numbers are written out", rendered.large_numbers, helm)
    checks.run("a placeholder without a value stops the render", bootstrap.unknown_placeholder, helm, scratch)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--tools", type=pathlib.Path, default=pathlib.Path("target/parts/helm").absolute())
    arguments.add_argument("--envoy")
    arguments.add_argument("--programs", type=pathlib.Path)
    arguments.add_argument("--write", action="store_true")
    options = arguments.parse_args()
    # One parse per schema file, not one per object.
    utils.schema_contents = functools.lru_cache(maxsize=None)(utils.schema_contents)
    utils.all_versions = functools.lru_cache(maxsize=None)(utils.all_versions)
    checks, helms = Checks(), [Helm(options.tools, "4"), Helm(options.tools, "3")]
    value_sets = {"default": []}
    for file in sorted([*(CHART / "ci").glob("*.yaml"), *(CHART / "values").glob("*.yaml")], key=lambda file: file.name):
        value_sets[file.name.removesuffix(".yaml").removesuffix("-values")] = [file]
    if options.write:
        docs.schema_is_described(write=True)
        docs.readme(write=True)
        golden.write(helms[0], value_sets)
        return 0
    out = options.tools / "rendered"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for helm in helms:
        check_helm(checks, helm, value_sets)
    with tempfile.TemporaryDirectory(dir=options.tools) as scratch:
        scratch = pathlib.Path(scratch)
        for name, values in value_sets.items():
            check_value_set(checks, helms, name, values, options, out / f"{name}-envoy.yaml", scratch)
        check_flows(checks, helms[0], value_sets)
        check_edge(checks, helms[0], value_sets)
        check_rules(checks, helms[0], value_sets, options.programs, scratch)
        check_certificates(checks, helms[0], value_sets)
        check_gates(checks, helms[0], value_sets, options, scratch)
        check_observed(checks, helms[0], options.programs, scratch)
        checks.run("Envoy drains by the preStop hook", bootstrap.envoy_drains, helms[0], options.envoy, scratch)
        for helm in helms:
            checks.run(f"{helm.name}: a package renders as its directory", bootstrap.packaged, helm, scratch)
        checks.run("every value set is there", sets.every_set_is_there, value_sets)
        checks.run("golden files", golden.hold, helms[0], value_sets)
        checks.run("value sets of the commit before can be upgraded", upgrade.from_the_commit_before, helms[0], scratch)
        checks.run("each renamed key is told", upgrade.every_rename_is_told, helms[0])
        checks.run("the schema knows the settings of the reference", docs.schema_knows_settings)
        checks.run("every value is documented", docs.every_value_is_documented)
        checks.run("the schema knows every setting of journal and databases", settings.are_all_in_the_schema)
        checks.run("schema and values name the same keys", docs.schema_matches_values)
        checks.run("the schema has the sentences of values.yaml", docs.schema_is_described, False)
        checks.run("README's table is that of values.yaml", docs.readme, False)
        file = checks.run("compose.yaml is valid and consistent", compose.consistent)
        if file:
            images.check(checks, options.programs, value_sets, helms[0], file, scratch / "images")
            checks.run("compose.yaml: its init job makes a bootstrap that Envoy accepts",
                       compose.renders_envoy, file, options.envoy, scratch)
            checks.run("compose.yaml: our binaries take what it mounts", compose.binaries_take_it, file, options.programs, scratch)
            apart = scratch / "keys-in-redis"
            apart.mkdir()
            checks.run("compose.yaml: with KEYS=redis they live there", compose.keys_live_in_redis, file, options.programs, apart)
    checks.run("each promise has a check", promises.every_number_has_a_check, checks.names)
    print(f"{checks.passed} passed, {checks.failed} failed")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
