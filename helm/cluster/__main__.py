"""The checks of helm/cluster.sh: one line each, then the sum."""

import argparse
import pathlib
import sys
import tempfile

from checks import CHART, Failure, Helm, objects, one_line, upgrade

from . import CHECKS, definitions, trials
from .control_plane import ControlPlane
from .nodes import Kubelets


class Checks:
    """Runs checks, prints one line for each and counts."""

    def __init__(self):
        self.passed = self.failed = 0

    def run(self, name, check, *arguments):
        if not name.endswith(CHECKS):
            raise ValueError(f"CHECKS has not '{name}'")
        try:
            result = check(*arguments)
        except Exception as error:  # A check that breaks has not passed, and the rest still counts.
            self.failed += 1
            kind = "" if isinstance(error, Failure) else f"{type(error).__name__}: "
            print(f"FAIL cluster: {name}: {kind}{one_line(str(error))}", flush=True)
            return None
        self.passed += 1
        print(f"ok   cluster: {name}" + (f" ({result})" if isinstance(result, int) and not isinstance(result, bool) else ""), flush=True)
        return result


def value_sets():
    found = sorted([*(CHART / "ci").glob("*.yaml"), *(CHART / "values").glob("*.yaml")], key=lambda file: file.name)
    return {"default": []} | {file.name.removesuffix(".yaml").removesuffix("-values"): [file] for file in found}


def try_set(checks, plane, helms, name, values, old):
    api, rendered = plane.api, objects(helms[0].template(values, kubernetes=plane.version))
    checks.run(f"{name} is accepted without a warning", trials.is_accepted, api, rendered)
    trials.volume(api)
    trials.claims(api, rendered)
    release = trials.Release(helms[0], plane.kubeconfig)
    # The older helm applies on the client's side: two sets are enough to see that it can, too.
    other = trials.Release(helms[1], plane.kubeconfig) if name in ("default", "full") else release

    def installed():
        release.install(values)
        return trials.runs(api, rendered)

    checks.run(f"{name} runs", installed)
    if name == "default":
        checks.run("one pod is evicted at a time", trials.evicted_one_at_a_time, api)
        checks.run("no pod runs on brokers' nodes", trials.tainted, api, rendered)
    if name == "full":
        checks.run("the admission policy refuses what breaks each rule", trials.policy, api, rendered)
    checks.run(f"{name} leaves nothing", release.remove, api)
    trials.forget_what_stays(api)
    was = [old / file.relative_to(CHART) for file in values] if old else []
    if old is None or not all(file.exists() for file in was):
        return
    trials.volume(api)
    trials.claims(api, rendered)

    def upgraded():
        other.install(was, chart=old)
        before = trials.templates(api)
        other.upgrade(values)
        trials.runs(api, rendered)
        other.run("rollback", trials.RELEASE, "1", "--wait", "--timeout", "90s")
        if trials.templates(api) != before:
            raise Failure("a rollback gives other pods")

    checks.run(f"{name} is upgraded from the commit before and rolled back", upgraded)
    checks.run(f"after an upgrade {name} leaves nothing", other.remove, api)
    trials.forget_what_stays(api)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--tools", type=pathlib.Path, required=True)
    arguments.add_argument("--control-plane", type=pathlib.Path, required=True)
    arguments.add_argument("--etcd", type=pathlib.Path, required=True)
    arguments.add_argument("--only", default="", help="value sets, by commas")
    options = arguments.parse_args()
    checks, helms = Checks(), [Helm(options.tools, "4"), Helm(options.tools, "3")]
    with tempfile.TemporaryDirectory(dir=options.tools) as scratch:
        scratch = pathlib.Path(scratch)
        old = upgrade.before(scratch)
        with ControlPlane(options.control_plane, options.etcd, scratch) as plane, Kubelets(plane.api):
            version = plane.api.get("/version")["gitVersion"]
            plane.version = version.removeprefix("v").rpartition(".")[0]
            count, stand_ins = definitions.install(plane.api)
            plane.api.discover()
            print(f"Kubernetes {version}, {count} definitions of operators, of which {len(stand_ins)} without a schema: {', '.join(sorted(stand_ins)) or 'none'}", flush=True)
            trials.prepare(plane.api)
            checks.run("the higher class takes the place of the lower", trials.preemption, plane.api)
            for name, values in value_sets().items():
                if not options.only or name in options.only.split(","):
                    try_set(checks, plane, helms, name, values, old)
    print(f"{checks.passed} passed, {checks.failed} failed")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
