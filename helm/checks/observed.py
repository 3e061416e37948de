"""Dashboards and rules against the metrics that the services really have."""

import json
import math
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import yaml

from . import CHART, HELM, Failure, alerts, hooks, need, topics
from .bootstrap import free_port

sys.path.insert(0, str(HELM))
import dashboards  # noqa: E402

OURS = ("ratelimit-svc/REFERENCE.md", "ext-authz/REFERENCE.md", "ingest-filter/REFERENCE.md", "ingest-filter/REFERENCE-writer.md")


def in_step():
    """The files in the chart are what dashboards.py makes."""
    for name in dashboards.DASHBOARDS:
        text = (CHART / f"files/dashboards/{name}.json").read_text(encoding="utf-8")
        need(text == dashboards.text(name), f"{name}.json is not in step: run python3 helm/dashboards.py")
    there = {path.stem for path in (CHART / "files/dashboards").glob("*.json")}
    need(there == dashboards.DASHBOARDS.keys(), f"{there}")


def queries():
    for name in dashboards.DASHBOARDS:
        board = json.loads((CHART / f"files/dashboards/{name}.json").read_text(encoding="utf-8"))
        for panel in board["panels"]:
            for target in panel["targets"]:
                yield f"{name}: {panel['title']} {target['refId']}", target["expr"]


def metrics_in(expression):
    expression = re.sub(r'"[^"]*"', '""', expression)
    return set(re.findall(r"\b(?:envoy|ratelimit|authz|ingest)_\w+(?=[{\[ ]|$)", expression))


def expressions(helm):
    yield from queries()
    for spec in alerts.rendered_groups(helm).values():
        for group in spec["groups"]:
            for rule in group["rules"]:
                yield rule.get("alert") or rule["record"], rule["expr"]


LABELS = {"envoy_http_conn_manager_prefix", "envoy_response_code_class", "envoy_cluster_name"}


def are_documented(helm):
    """Every metric of ours that a panel or a rule names is in a reference."""
    text = "".join((HELM.parent / file).read_text(encoding="utf-8") for file in OURS)
    count = 0
    for where, expression in expressions(helm):
        for metric in metrics_in(expression) - LABELS:
            if metric.startswith("envoy_"):
                continue
            count += 1
            base = re.sub(r"_(bucket|sum|count|total)$", "", metric)
            need(f"`{metric}`" in text or f"`{base}`" in text or f"`{base}_total`" in text, f"{where}: {metric} is in no reference")
    need(count > 60, f"only {count} metrics were found")


class Edge:
    """The whole edge on real parts, and a Prometheus that scrapes it every second."""

    def __init__(self, programs, scratch):
        self.programs, self.scratch, self.running = programs, scratch, []

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def start(self):
        directory = self.scratch / "edge"
        log = open(self.scratch / "edge.log", "w", encoding="utf-8")
        command = [self.programs / "tidegate-edge", "--full", "--dir", directory, "--port", str(free_port())]
        edge = subprocess.Popen(command, cwd=HELM.parent, stdout=log, stderr=subprocess.STDOUT)
        self.running.append(edge)
        deadline = time.monotonic() + 120
        while not (directory / "env").exists():
            need(edge.poll() is None and time.monotonic() < deadline, "the edge did not start: " + (self.scratch / "edge.log").read_text(encoding="utf-8")[-400:])
            time.sleep(0.1)
        pairs = (line.split("=", 1) for line in (directory / "env").read_text(encoding="utf-8").splitlines())
        self.env = {name: value.strip("'") for name, value in pairs}
        jobs = [("envoy", "ENVOY_STATUS", "/stats/prometheus"), ("ratelimit-svc", "RLS_ADMIN", "/metrics"), ("ext-authz", "AUTHZ_ADMIN", "/metrics"),
                ("gateway", "GATEWAY_ADMIN", "/metrics"), ("writer", "WRITER_ADMIN", "/metrics")]
        config = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": [
            {"job_name": name, "metrics_path": path, "static_configs": [{"targets": [self.env[variable].split("//")[1]],
                                                                       "labels": {"namespace": "tidegate", "pod": f"{name}-0"}}]}
            for name, variable, path in jobs]}
        (self.scratch / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
        self.prometheus = f"http://127.0.0.1:{free_port()}"
        command = ["prometheus", f"--config.file={self.scratch}/prometheus.yml", f"--storage.tsdb.path={self.scratch}/tsdb",
                   f"--web.listen-address={self.prometheus.split('//')[1]}", "--log.level=error"]
        self.running.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT))

    def __exit__(self, *_):
        for process in reversed(self.running):
            process.terminate()
            try:
                process.wait(timeout=40)
            except subprocess.TimeoutExpired:
                process.kill()

    def send(self, key, body):
        request = urllib.request.Request(f"{self.env['TIDEGATE_EDGE']}/api/v2/write?bucket=b", data=body, headers={"Authorization": f"Token {key}"})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status
        except urllib.error.HTTPError as answer:
            return answer.code

    def ask(self, query):
        url = f"{self.prometheus}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]["result"]
        except urllib.error.HTTPError as error:
            raise Failure(f"{query}: {error.read()[:300]}") from None
        except OSError:
            return []


def traffic(edge, stop, seen):
    """Good points, a bad line, a quota that is passed and a bad key, until told to stop."""
    while not stop.is_set():
        seen.add(edge.send(edge.env["TIDEGATE_LOAD_KEY"], b"weather,city=Oslo temperature=4.5"))
        seen.add(edge.send(edge.env["TIDEGATE_LOAD_KEY"], b"weather,city=Oslo temperature=4.5\nbad line"))
        seen.add(edge.send(edge.env["TIDEGATE_KEY"], b"weather,city=Bergen temperature=5"))
        seen.add(edge.send("tdg_live_wrong", b"a b=1"))
        stop.wait(0.05)


def answered(series):
    return any(math.isfinite(float(one["value"][1])) for one in series)


def envoys_in_rules(helm):
    names = set()
    for _, expression in expressions(helm):
        names |= {metric for metric in metrics_in(expression) - LABELS if metric.startswith("envoy_")}
    return names


def panels_return_data(helm, programs, scratch):
    """Every query of every panel has data from the real services, in a real Prometheus; what rules name of Envoy too."""
    scratch.mkdir()
    with Edge(programs, scratch) as edge:
        stop, seen = threading.Event(), set()
        sender = threading.Thread(target=traffic, args=(edge, stop, seen), daemon=True)
        sender.start()
        try:
            pending = {where: query.replace('=~"$namespace"', '=~".*"').replace("$__rate_interval", "10s") for where, query in queries()}
            total = len(pending)
            deadline = time.monotonic() + 60
            while pending and time.monotonic() < deadline:
                pending = {where: query for where, query in pending.items() if not answered(edge.ask(query))}
                time.sleep(1)
            missing = [name for name in sorted(envoys_in_rules(helm)) if not edge.ask(name)]
            need(not missing, f"rules name what Envoy has not: {missing}")
            need(not pending, f"{len(pending)} of {total} queries without data: {'; '.join(pending)}")
            need({204, 400, 401, 429} <= seen, f"the traffic was answered {seen}")
            # While the demo tenant's quota is spent by the traffic, the test's own limited key is refused at once.
            hooks.smoke_test(helm, programs, scratch, edge)
            topics.made_by_the_job(helm, programs, scratch, edge)
        finally:
            stop.set()
            sender.join(timeout=20)
