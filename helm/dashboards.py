"""Makes the Grafana dashboards in tidegate/files/dashboards: `python3 helm/dashboards.py`.

A panel is a title, a unit and queries with their legends. `$match` stands for the release's namespace and
`$__rate_interval` for four scrapes, as Grafana has it.
"""

import json
import pathlib

OUT = pathlib.Path(__file__).parent / "tidegate/files/dashboards"
M = 'namespace=~"$namespace"'
EDGE = f'envoy_http_conn_manager_prefix="edge",{M}'
RATE = "[$__rate_interval]"


def rate(metric, labels=M, by=""):
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{{{labels}}}{RATE}))"


def quantile(q, metric, labels=M, by=""):
    by = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({by}) (rate({metric}_bucket{{{labels}}}{RATE})))"


# Title, unit of Grafana, queries as (PromQL, legend).
DASHBOARDS = {
    "edge": ("Tidegate: edge", [
        ("Requests", "reqps", [(rate("envoy_http_downstream_rq_xx", EDGE, "envoy_response_code_class"), "{{envoy_response_code_class}}xx")]),
        ("Share of requests that fail", "percentunit", [(
            f'{rate("envoy_http_downstream_rq_xx", EDGE + ",envoy_response_code_class=" + chr(34) + "5" + chr(34))} / {rate("envoy_http_downstream_rq_completed", EDGE)}', "5xx"),
            ("vector(0.001)", "objective")]),
        ("Duration of requests", "ms", [(quantile(q, "envoy_http_downstream_rq_time", EDGE), f"p{int(q * 100)}") for q in (0.5, 0.9, 0.99)]),
        ("Requests of each pod", "reqps", [(rate("envoy_http_downstream_rq_total", EDGE, "pod"), "{{pod}}")]),
        ("Open connections and requests", "short", [(f"sum(envoy_http_downstream_cx_active{{{EDGE}}})", "connections"), (f"sum(envoy_http_downstream_rq_active{{{EDGE}}})", "requests")]),
        ("Share of upstream pods that are healthy", "percentunit", [(
            f'sum by (envoy_cluster_name) (envoy_cluster_membership_healthy{{envoy_cluster_name=~"ext-authz|ratelimit-svc|gateway",{M}}}) / '
            f'sum by (envoy_cluster_name) (envoy_cluster_membership_total{{envoy_cluster_name=~"ext-authz|ratelimit-svc|gateway",{M}}})', "{{envoy_cluster_name}}")]),
        ("Duration of each hop, p99", "ms", [(quantile(0.99, "envoy_cluster_upstream_rq_time", M, "envoy_cluster_name"), "{{envoy_cluster_name}}")]),
        ("Checks of keys", "reqps", [(rate("authz_checks_total", M, "decision, reason"), "{{decision}} {{reason}}")]),
        ("Decisions on limits", "reqps", [(rate("ratelimit_requests_total", M, "code"), "{{code}}")]),
        ("Duration of checks and decisions, p99", "s", [(quantile(0.99, "authz_check_duration_seconds"), "ext-authz"), (quantile(0.99, "ratelimit_decision_duration_seconds"), "ratelimit-svc")]),
        ("Redis out of reach", "short", [(f"sum(ratelimit_breaker_open{{{M}}})", "replicas"), (rate("ratelimit_bypassed_hits_total"), "hits that bypass")]),
        ("Age and staleness of keys", "s", [(f"max(authz_snapshot_age_seconds{{{M}}})", "age"), (f"max(authz_snapshot_stale_seconds{{{M}}})", "stale")]),
        ("Heap of Envoy, share of its limit", "percent", [(f"max by (pod) (envoy_overload_envoy_resource_monitors_fixed_heap_pressure{{{M}}})", "{{pod}}")]),
        ("Versions", "short", [(f"count by (version) (ratelimit_build_info{{{M}}})", "ratelimit-svc {{version}}"), (f"count by (version) (authz_build_info{{{M}}})", "ext-authz {{version}}")]),
    ]),
    "pipeline": ("Tidegate: pipeline", [
        ("Points stored and written", "short", [(rate("ingest_gateway_points_stored_total"), "into the journal"), (rate("ingest_writer_points_written_total"), "into the database")]),
        ("Requests at the gateway", "reqps", [(rate("ingest_gateway_requests_total", M, "outcome"), "{{outcome}}")]),
        ("Records that wait", "short", [(f"sum(ingest_journal_lag_records{{{M}}})", "records in Kafka")]),
        ("Bytes that wait on disk", "bytes", [(f"sum(ingest_journal_lag_bytes{{{M}}})", "not written"), (f"sum(ingest_journal_disk_bytes{{{M}}})", "in segments")]),
        ("Age of the oldest point not written", "s", [(f"max by (pod) (ingest_writer_oldest_unwritten_age_seconds{{{M}}})", "{{pod}}")]),
        ("Duration of appends and writes", "s", [(quantile(0.99, "ingest_journal_append_duration_seconds"), "append p99"), (quantile(0.99, "ingest_writer_write_duration_seconds"), "write p99")]),
        ("Appends that failed", "short", [(rate("ingest_journal_append_failures_total"), "appends"), (rate("ingest_journal_producer_rebuilds_total"), "producers replaced")]),
        ("Retries of the writer", "short", [(f"sum by (class) (rate(ingest_writer_retries_total{{{M}}}{RATE})) or vector(0)", "{{class}}")]),
        ("Dead letters", "short", [(f"sum by (cause) (increase(ingest_writer_dead_lettered_points_total{{{M}}}[1h]))", "{{cause}}")]),
        ("Memory of requests at the gateway", "bytes", [(f"sum by (pod) (ingest_gateway_in_flight_bytes{{{M}}})", "{{pod}}")]),
        ("Batches and databases made", "short", [(rate("ingest_writer_batches_total"), "batches/s"), (f"sum(ingest_writer_databases_created_total{{{M}}})", "databases made")]),
        ("Partitions of each writer", "short", [(f"sum by (pod) (ingest_journal_lanes{{{M}}})", "{{pod}}"), (f"sum(ingest_journal_paused_lanes{{{M}}})", "paused")]),
        ("Bytes at the gateway", "Bps", [(rate("ingest_gateway_wire_bytes_total"), "over the wire"), (rate("ingest_gateway_decoded_bytes_total"), "decoded"), (rate("ingest_gateway_journal_bytes_total"), "into the journal")]),
        ("Types of fields", "short", [(f"sum(ingest_gateway_fields_pinned{{{M}}})", "pinned"), (rate("ingest_gateway_fields_unpinned_total"), "unpinned/s")]),
    ]),
    "tenants": ("Tidegate: tenants", [
        ("Points by protocol", "short", [(rate("ingest_gateway_points_stored_total", M, "protocol"), "{{protocol}}")]),
        ("Points refused", "short", [(rate("ingest_gateway_points_rejected_total", M, "protocol, reason"), "{{protocol}} {{reason}}")]),
        ("Bytes by protocol", "Bps", [(rate("ingest_gateway_wire_bytes_total", M, "protocol"), "{{protocol}}")]),
        ("Hits of each limit", "reqps", [(f"topk(20, {rate('ratelimit_hits_total', M + ',kind=' + chr(34) + 'total' + chr(34), 'domain, rule')})", "{{domain}} {{rule}}")]),
        ("Over limit", "reqps", [(f"topk(20, {rate('ratelimit_hits_total', M + ',kind=' + chr(34) + 'over_limit' + chr(34), 'domain, rule')})", "{{domain}} {{rule}}")]),
        ("Near limit", "reqps", [(f"topk(20, {rate('ratelimit_hits_total', M + ',kind=' + chr(34) + 'near_limit' + chr(34), 'domain, rule')})", "{{domain}} {{rule}}")]),
        ("Decisions of each class", "reqps", [(rate("ratelimit_decisions_total", M, "class, decision, reason"), "{{class}} {{decision}} {{reason}}")]),
        ("Refused keys", "reqps", [(rate("authz_checks_total", M + ',decision="deny"', "reason, profile"), "{{reason}} {{profile}}")]),
        ("Keys in force", "short", [(f"max(authz_snapshot_keys{{{M}}})", "keys")]),
        ("Leases", "short", [(f"sum(ratelimit_lease_counters{{{M}}})", "counters"), (f"sum(ratelimit_lease_held{{{M}}})", "hits held"), (f"sum(rate(ratelimit_lease_calls_total{{{M}}}{RATE}))", "calls/s")]),
    ]),
}


def panel(number, title, unit, queries):
    return {
        "id": number + 1, "type": "timeseries", "title": title,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "gridPos": {"h": 8, "w": 12, "x": number % 2 * 12, "y": number // 2 * 8},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0, "custom": {"fillOpacity": 10, "showPoints": "never"}}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [{"refId": chr(ord("A") + place), "expr": query, "legendFormat": legend, "datasource": {"type": "prometheus", "uid": "${datasource}"}}
                    for place, (query, legend) in enumerate(queries)],
    }


def dashboard(name):
    title, panels = DASHBOARDS[name]
    variables = [
        {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
        {"name": "namespace", "label": "Namespace", "type": "query", "datasource": {"type": "prometheus", "uid": "${datasource}"},
         "query": "label_values(envoy_server_live, namespace)", "includeAll": True, "multi": True, "refresh": 2, "current": {"text": "All", "value": "$__all"}},
    ]
    return {
        "uid": f"tidegate-{name}", "title": title, "tags": ["tidegate"], "schemaVersion": 39, "editable": True,
        "refresh": "30s", "time": {"from": "now-1h", "to": "now"}, "timezone": "",
        "templating": {"list": variables}, "annotations": {"list": []},
        "links": [{"type": "dashboards", "tags": ["tidegate"], "title": "Tidegate", "asDropdown": False}],
        "panels": [panel(number, *what) for number, what in enumerate(panels)],
    }


def text(name):
    return json.dumps(dashboard(name), indent=1) + "\n"


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    for each in DASHBOARDS:
        (OUT / f"{each}.json").write_text(text(each), encoding="utf-8")
