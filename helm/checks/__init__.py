"""What all checks share: how one fails, how helm is run, what it renders."""

import pathlib
import subprocess
import time

import yaml

HELM = pathlib.Path(__file__).parent.parent
CHART = HELM / "tidegate"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Failure(Exception):
    """A check that failed, with the one line that says how."""


def need(condition, message):
    if not condition:
        raise Failure(message)


def wait_for(what, condition, deadline=180, pause=0.2):
    """Asks until there is an answer that is not None or False; gives up after so many seconds."""
    until = time.monotonic() + deadline
    while True:
        found = condition()
        if found:
            return found
        need(time.monotonic() < until, f"waited in vain for {what}")
        time.sleep(pause)


class Helm:
    """One helm program."""

    def __init__(self, tools, major):
        self.program = tools / f"helm-{major}"
        self.name = f"helm {major}"

    def run(self, *arguments):
        done = subprocess.run([self.program, *map(str, arguments)], capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    def template(self, values=(), chart=CHART, sets=(), kubernetes=None):
        arguments = ["template", "edge", chart, "--namespace", "tidegate"]
        for file in values:
            arguments += ["--values", file]
        for assignment in sets:
            arguments += ["--set", assignment]
        if kubernetes:
            arguments += ["--kube-version", f"{kubernetes}.0"]
        code, out, err = self.run(*arguments)
        need(code == 0, one_line(err))
        return out

    def refuses(self, assignments, expected):
        try:
            self.template(sets=assignments)
        except Failure as failure:
            need(expected in str(failure), f"refused without a word of '{expected}': {failure}")
            return
        raise Failure("was rendered")


def one_line(text):
    return " ".join(text.split())[:600]


def objects(text):
    return [item for item in yaml.load_all(text, Loader=LOADER) if item]


def of_kind(rendered, *kinds):
    return [item for item in rendered if item["kind"] in kinds]


def named(item):
    return f"{item['kind']} {item['metadata']['name']}"
