"""Every alert, tried by promtool: series under which it fires, and series under which it does not.

Series are in promtool's notation, one value a minute: `0+6x60` begins at 0 and grows by 6 for 60 minutes.
"""

import subprocess

import yaml

from . import HELM, need, objects, of_kind, one_line

MATCH = 'namespace="tidegate"'
REQUESTS = "envoy_http_downstream_rq_completed{envoy_http_conn_manager_prefix='edge'}"
FAILURES = "envoy_http_downstream_rq_xx{envoy_http_conn_manager_prefix='edge',envoy_response_code_class='5'}"
HEALTHY = "envoy_cluster_membership_healthy{envoy_cluster_name='gateway'}"
MEMBERS = "envoy_cluster_membership_total{envoy_cluster_name='gateway'}"
SLOW = "envoy_http_downstream_rq_time_bucket{envoy_http_conn_manager_prefix='edge',le='%s'}"


def ratio(failures, minutes):
    """6000 requests a minute, of which so many fail."""
    return {REQUESTS: f"0+6000x{minutes}", FAILURES: f"0+{failures}x{minutes}"}


def durations(fast, minutes=30):
    return {SLOW % "100": f"0+{fast}x{minutes}", SLOW % "2500": f"0+{fast}x{minutes}", SLOW % "5000": f"0+100x{minutes}", SLOW % "+Inf": f"0+100x{minutes}"}


# Alert: minutes until it is looked at, series under which it fires, series under which it does not.
CASES = {
    "TidegateErrorBudgetBurnsFast": (70, ratio(120, 70), ratio(60, 70)),
    "TidegateErrorBudgetBurns": (400, ratio(48, 400), ratio(30, 400)),
    "TidegateErrorBudgetBurnsSlowly": (4500, ratio(12, 4500), ratio(3, 4500)),
    "TidegateEdgeSlow": (20, durations(97), durations(100)),
    "TidegateEdgeAbsent": (5, {"envoy_server_live": "0x10"}, {"envoy_server_live": "1x10"}),
    "TidegateUpstreamUnhealthy": (5, {HEALTHY: "1x10", MEMBERS: "3x10"}, {HEALTHY: "2x10", MEMBERS: "3x10"}),
    "TidegateEdgeOverloaded": (5, {"envoy_overload_envoy_overload_actions_stop_accepting_requests_active": "1x10"},
                               {"envoy_overload_envoy_overload_actions_stop_accepting_requests_active": "0x10"}),
    "TidegateWiringFault": (10, {"ingest_gateway_requests_total{outcome='tenant_missing'}": "0+6x10"},
                            {"ingest_gateway_requests_total{outcome='stored'}": "0+6x10", "authz_checks_total{reason='none'}": "0+6x10"}),
    "TidegateRedisDown": (5, {"ratelimit_breaker_open": "1x10"}, {"ratelimit_breaker_open": "1 0x10"}),
    "TidegateBypassActive": (15, {"ratelimit_bypassed_hits_total": "0+60x20"}, {"ratelimit_bypassed_hits_total": "60x20"}),
    "TidegateConfigurationRejected": (5, {"ratelimit_config_errors": "1x10"}, {"ratelimit_config_errors": "0x10"}),
    "TidegateControlPlaneLost": (15, {"ratelimit_config_source_lost": "1x20"}, {"ratelimit_config_source_lost": "1x5 0x15"}),
    "TidegateReplicasDisagree": (15, {"ratelimit_config_hash{pod='a'}": "7x20", "ratelimit_config_hash{pod='b'}": "8x20"},
                                 {"ratelimit_config_hash{pod='a'}": "7x20", "ratelimit_config_hash{pod='b'}": "7x20"}),
    "TidegateClockSkewed": (10, {"ratelimit_clock_skew_seconds": "-0.4x20"}, {"ratelimit_clock_skew_seconds": "-0.2x20"}),
    "TidegateKeysStale": (10, {"authz_snapshot_stale_seconds": "0+60x20"}, {"authz_snapshot_stale_seconds": "0x20"}),
    # promtool's clock begins at 0: 100,000 s is a day, 900,000 s more than ten.
    "TidegateCertificateExpires": (20, {"authz_tls_certificate_expiry_timestamp_seconds": "100000x30"},
                                   {"authz_tls_certificate_expiry_timestamp_seconds": "900000x30", "ratelimit_tls_certificate_expiry_timestamp_seconds": "0x30",
                                    "envoy_server_days_until_first_cert_expiring": "4294967295x30"}),
    "TidegateTlsFilesRefused": (10, {"authz_otlp_tls_files_refused": "1x20"}, {"authz_otlp_tls_files_refused": "1x3 0x17", "ingest_gateway_tls_files_refused": "0x20"}),
    "TidegateJournalRefuses": (10, {"ingest_journal_append_failures_total": "0+6x10"}, {"ingest_journal_append_failures_total": "6x10"}),
    "TidegateGatewayFull": (15, {"ingest_gateway_requests_total{outcome='memory_exhausted'}": "0+6x20"}, {"ingest_gateway_requests_total{outcome='stored'}": "0+6x20"}),
    "TidegateLag": (15, {"ingest_journal_lag_records": "200000x20"}, {"ingest_journal_lag_records": "90000x20"}),
    "TidegatePointsLate": (10, {"ingest_writer_oldest_unwritten_age_seconds": "0+60x20"}, {"ingest_writer_oldest_unwritten_age_seconds": "100x20"}),
    "TidegateDeadLetters": (10, {"ingest_writer_dead_lettered_points_total{cause='refused'}": "0 0 0 1x20"}, {"ingest_writer_dead_lettered_points_total{cause='refused'}": "4x20"}),
    "TidegateDeadLettersFail": (15, {"ingest_writer_dead_letter_failures_total": "0+1x20"}, {"ingest_writer_dead_letter_failures_total": "3x20"}),
    "TidegateJournalCorrupt": (10, {"ingest_journal_corrupt_regions_total": "0 0 1x20"}, {"ingest_journal_corrupt_regions_total": "1x20"}),
    "TidegatePodsPending": (10, {"kube_pod_status_phase{phase='Pending'}": "1x20"}, {"kube_pod_status_phase{phase='Pending'}": "1 1 0x20"}),
    "TidegateNodeNetworkBusy": (30, {"node_network_transmit_bytes_total{device='eth0'}": "0+6000x40", "node_network_speed_bytes{device='eth0'}": "110x40"},
                                {"node_network_transmit_bytes_total{device='eth0'}": "0+6000x40", "node_network_speed_bytes{device='eth0'}": "200x40"}),
    "TidegateAddressesRunOut": (20, {"cilium_ipam_ips{type='available'}": "10x30", "cilium_ipam_ips{type='used'}": "90x30"},
                                {"cilium_ipam_ips{type='available'}": "20x30", "cilium_ipam_ips{type='used'}": "80x30",
                                 "aws_vpc_ipam_pool_available_ips": "30x30", "aws_vpc_ipam_pool_ips": "100x30"}),
}


def rendered_groups(helm):
    rendered = objects(helm.template(sets=["metrics.prometheusRule.enabled=true", "metrics.prometheusRule.platform=true"]))
    return {item["metadata"]["name"]: item["spec"] for item in of_kind(rendered, "PrometheusRule")}


def alerts(helm):
    return [rule for spec in rendered_groups(helm).values() for group in spec["groups"] for rule in group["rules"] if "alert" in rule]


def labelled(series):
    """A series with the labels that scrapes give: the namespace, and a pod where the case names none."""
    name, _, labels = series.partition("{")
    labels = [label for label in labels.rstrip("}").replace("'", '"').split(",") if label]
    pod = [] if any(label.startswith("pod=") for label in labels) else ['pod="p"']
    return f"{name}{{{','.join([*labels, *pod, MATCH])}}}"


def fire_and_rest(helm, scratch):
    names = {rule["alert"] for rule in alerts(helm)}
    need(names == CASES.keys(), f"without a case, or a case without an alert: {sorted(names ^ CASES.keys())}")
    files = []
    for name, spec in rendered_groups(helm).items():
        files.append(str(scratch / f"{name}.yaml"))
        (scratch / f"{name}.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    done = subprocess.run(["promtool", "check", "rules", *files], capture_output=True, text=True)
    need(done.returncode == 0, one_line(done.stdout + done.stderr))
    tests = []
    for name, (minutes, fires, rests) in CASES.items():
        for series, samples in ((fires, 1), (rests, 0)):
            expression = f'clamp_max(count(ALERTS{{alertname="{name}",alertstate="firing"}}), 1) or vector(0)'
            tests.append({
                "name": f"{name} {'fires' if samples else 'rests'}", "interval": "1m",
                "input_series": [{"series": labelled(key), "values": values} for key, values in series.items()],
                "promql_expr_test": [{"expr": expression, "eval_time": f"{minutes}m", "exp_samples": [{"labels": "{}", "value": samples}]}],
            })
    file = scratch / "alerts-test.yaml"
    file.write_text(yaml.safe_dump({"rule_files": files, "evaluation_interval": "1m", "tests": tests}), encoding="utf-8")
    done = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True)
    need(done.returncode == 0, one_line(done.stdout + done.stderr))
    return len(tests)


def runbooks(helm):
    """Each alert links to a runbook that is there, and each runbook has an alert."""
    there = {path.stem for path in (HELM.parent / "docs/runbooks").glob("*.md")}
    names = {rule["alert"] for rule in alerts(helm)}
    need(there == names, f"runbooks without an alert, or alerts without one: {sorted(there ^ names)}")
    for rule in alerts(helm):
        need(rule["annotations"]["runbook_url"].endswith(f"/docs/runbooks/{rule['alert']}.md"), f"{rule['alert']}: {rule['annotations']}")
        need(rule["labels"]["severity"] in ("page", "ticket") and rule["annotations"]["summary"], f"{rule['alert']}: no severity or summary")
        text = (HELM.parent / f"docs/runbooks/{rule['alert']}.md").read_text(encoding="utf-8")
        for part in ("## What it means", "## What it does to users", "## What to look at", "## What to do"):
            need(part in text, f"{rule['alert']}.md has no part '{part}'")


def keys_of_values(helm):
    """Labels and links are values."""
    sets = ["metrics.prometheusRule.enabled=true", "metrics.prometheusRule.alertLabels.team=edge", "metrics.prometheusRule.runbooks=https://wiki.example.com/r/",
            'metrics.matchers=cluster="a"']
    [item] = of_kind(objects(helm.template(sets=sets)), "PrometheusRule")
    rules = [rule for group in item["spec"]["groups"] for rule in group["rules"]]
    for rule in rules:
        need("alert" not in rule or rule["labels"]["team"] == "edge" and rule["annotations"]["runbook_url"] == f"https://wiki.example.com/r/{rule['alert']}.md", f"{rule}")
        need("${" not in rule["expr"] and MATCH not in rule["expr"], rule["expr"])
