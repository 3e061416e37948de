"""The Job before an installation or upgrade, run here by the real program."""

import subprocess

from . import need, objects, of_kind, one_line
from .refusals import quotas


def hook_of(job):
    return job["metadata"].get("annotations", {}).get("helm.sh/hook", "")


def job_of(helm, sets=()):
    rendered = objects(helm.template(sets=sets))
    [job] = [job for job in of_kind(rendered, "Job") if "pre-upgrade" in hook_of(job)]
    return job, {item["metadata"]["name"]: item for item in of_kind(rendered, "ConfigMap")}


def run(helm, programs, scratch, sets=()):
    """Runs the Job's containers one after the other on the files that they mount: the first that fails, or None."""
    job, maps = job_of(helm, sets)
    spec = job["spec"]["template"]["spec"]
    for volume in spec["volumes"]:
        sources = [volume] if "configMap" in volume else volume["projected"]["sources"]
        directory = scratch / volume["name"]
        directory.mkdir(parents=True, exist_ok=True)
        for source in sources:
            item = maps[source["configMap"]["name"]]
            need(item["metadata"]["annotations"]["helm.sh/hook"] == job["metadata"]["annotations"]["helm.sh/hook"], f"{item['metadata']['name']} is not there before")
            need(int(item["metadata"]["annotations"]["helm.sh/hook-weight"]) < int(job["metadata"]["annotations"]["helm.sh/hook-weight"]), "made after the Job")
            for name, text in item["data"].items():
                (directory / name).write_text(text, encoding="utf-8")
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        [program] = container["command"]
        arguments = [argument.replace("/etc/tidegate", str(scratch)) for argument in container["args"]]
        done = subprocess.run([programs / program.rsplit("/", 1)[1], *arguments], capture_output=True, text=True)
        if done.returncode != 0:
            return container["name"], one_line(done.stdout + done.stderr)
    return None


def broken_quotas_stop_an_upgrade(helm, programs, scratch):
    """Good quotas pass, and broken ones fail the Job, and so the upgrade, with file and line."""
    need(run(helm, programs, scratch / "good") is None, "the chart's own quotas and bootstrap are refused")
    bad = quotas("gold: {rank: 1, default: true}", "z") + "descriptors:\n  - key: tenant\n    rate_limit: {unit: fortnight\\, requests_per_unit: 1}\n"
    failed = run(helm, programs, scratch / "bad", [bad])
    need(failed and failed[0] == "quotas" and "z.yaml:" in failed[1] and "fortnight" in failed[1], f"{failed}")


def broken_bootstraps_stop_an_upgrade(helm, programs, scratch):
    """A value that makes a trap of Envoy's bootstrap fails the Job: here, a wait for ratelimit-svc without end."""
    failed = run(helm, programs, scratch / "trap", ["envoy.timeouts.ratelimit=0s"])
    need(failed and failed[0] == "bootstrap" and "ratelimit-timeout-endless" in failed[1], f"{failed}")


def without_files(helm):
    """Quotas of a control plane cannot be checked; existing ConfigMaps can."""
    job, _ = job_of(helm, ["ratelimit.quotas.edge\\.yaml=null", "ratelimit.outageByClass.a=local"])
    need("initContainers" not in job["spec"]["template"]["spec"], "checks quotas that are not there")
    job, _ = job_of(helm, ["ratelimit.existingQuotasConfigMaps={ours}"])
    [volume] = [v for v in job["spec"]["template"]["spec"]["volumes"] if v["name"] == "quotas"]
    need(volume["projected"]["sources"] == [{"configMap": {"name": "ours"}}], f"{volume}")


def smoke_test(helm, programs, scratch, edge):
    """The container of `helm test`, run against the real edge: it passes, and fails where the edge is not as it should be."""
    sets = ["smokeTest.keysSecret=smoke", "smokeTest.tenant=load", f"writer.sink.influxdb_v1.url={edge.env['TIDEGATE_INFLUXDB']}"]
    [job] = [job for job in of_kind(objects(helm.template(sets=sets)), "Job") if hook_of(job) == "test"]
    [container] = job["spec"]["template"]["spec"]["containers"]
    keys = scratch / "smoke"
    keys.mkdir()
    (keys / "key").write_text(edge.env["TIDEGATE_LOAD_KEY"], encoding="utf-8")
    (keys / "limited-key").write_text(edge.env["TIDEGATE_KEY"] + "\n", encoding="utf-8")

    def tried(*changed):
        arguments = [argument.replace("/etc/tidegate/keys", str(keys)) for argument in container["args"]]
        # Here the database's authority is one of this run; in a cluster those of the system count.
        arguments += ["--influxdb-ca", edge.env["TIDEGATE_CA"]]
        arguments[arguments.index("--edge") + 1] = edge.env["TIDEGATE_EDGE"]
        return subprocess.run([programs / "ingest-filter", *arguments, *changed], capture_output=True, text=True, timeout=120)

    done = tried()
    need(done.returncode == 0 and done.stdout.count("ok: ") == 4, one_line(done.stdout + done.stderr))
    (keys / "limited-key").write_text(edge.env["TIDEGATE_LOAD_KEY"], encoding="utf-8")
    done = tried()
    need(done.returncode == 1 and "no quota refused one" in done.stderr, f"a quota that refuses nobody: {one_line(done.stdout + done.stderr)}")
    (keys / "key").write_text("tdg_live_unknown", encoding="utf-8")
    done = tried()
    need(done.returncode == 1 and "a good key was answered 401" in done.stderr, f"a key that is not admitted: {one_line(done.stdout + done.stderr)}")
