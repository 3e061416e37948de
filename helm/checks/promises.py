"""PROMISES.md against the requirements' numbers and against the checks and tests that there are."""

import re

import cluster
import spire

from . import HELM, need

# The requirements that concern the chart, the images and what they stand on.
NUMBERS = """
0.1 0.2 0.3 0.6 0.8 0.9 0.10 0.11 0.12 0.13 0.14 0.15 0.16 0.17 0.18 0.20 0.21 0.22 0.23 0.24 0.26 0.27 0.30 0.31 0.32
0.33 0.34 0.35 0.36 0.37 0.38 0.39 0.40 0.41 0.43 0.45 0.46 0.47 0.49 0.50 0.51 0.52 0.53 0.54 0.55
1.1 1.3 1.5 1.6 1.8 1.9 1.11 1.12 1.15 1.16 1.17 1.18 2.1 2.2 2.4 2.5 2.6 2.7 2.8 2.9 2.11 2.12
3.2 3.3 3.5 3.6 3.7 3.8 3.12 3.14 3.15 3.16 3.17 3.20 3.21 3.23 3.24 3.26 3.27 3.28 3.29 3.30 3.32 3.33 3.34
4.5 4.9 4.10 4.11 4.14 4.17 4.18 4.19 4.22 4.24 4.27 4.28 4.29 4.31 4.32 4.33 4.34 4.35 4.36 4.37 4.38 4.39 4.40 4.41 4.44
""".split()
# What no test here can show, or is not there yet. A number leaves this list when a check holds it, and none may join.
NOT_HELD = {"0.1", "2.9", "3.14", "3.21", "4.39"}
# Checks of helm's majors, and of operators' schemas where those are at hand.
SOMETIMES = "schemas of operators' objects"


def tables():
    held, rest = (HELM / "PROMISES.md").read_text(encoding="utf-8").split("## Not held")
    rows = [re.findall(r"^\| (\d+\.\d+) \| (.+?) \| (.+?) \|$", part, re.MULTILINE) for part in (held, rest)]
    return rows


def rust_test(name):
    file, test = name.split("::")
    path = HELM.parent / file
    return path.exists() and re.search(rf"\bfn {test}\b", path.read_text(encoding="utf-8")) is not None


def elsewhere(name):
    """A check of helm/cluster.sh or of helm/spire.sh, which are run by hand."""
    where, _, check = name.partition(": ")
    return where == "cluster" and check.endswith(cluster.CHECKS) or where == "spire" and check in spire.CHECKS


def every_number_has_a_check(names):
    """Each number is in one table; what is held names checks that ran, or Rust tests that are there."""
    held, rest = tables()
    numbers = [number for number, *_ in held + rest]
    need(sorted(numbers) == sorted(NUMBERS), f"missing, added or twice: {sorted(set(numbers) ^ set(NUMBERS))}")
    need({number for number, *_ in rest} == NOT_HELD, f"not held: {sorted({number for number, *_ in rest} ^ NOT_HELD)}")
    for number, _, by in held:
        checks = re.findall(r"`([^`]+)`", by)
        need(checks, f"{number} has no check")
        for check in checks:
            known = rust_test(check) if "::" in check else check in names or check.endswith(SOMETIMES) or elsewhere(check)
            need(known or any(name.endswith(f": {check}") for name in names), f"{number}: there is no check '{check}'")
