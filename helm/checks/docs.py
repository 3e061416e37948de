"""Checks that values.yaml, its schema and the README say the same."""

import functools
import json
import re

import yaml

from . import CHART, LOADER, need

BEGIN, END = "<!-- values: begin -->\n", "<!-- values: end -->\n"


def documented_values():
    """Key, default and sentence of each `# --` comment in values.yaml, in its order."""
    lines = (CHART / "values.yaml").read_text(encoding="utf-8").splitlines()
    values, path, rows, sentence = yaml.load("\n".join(lines), Loader=LOADER), [], [], None
    for line in lines:
        comment = re.match(r" *# -- (.*)", line)
        key = re.match(r"( *)([A-Za-z_]\w*):", line)
        if comment:
            sentence = comment[1]
        elif key:
            path = path[: len(key[1]) // 2] + [key[2]]
            if sentence:
                default = functools.reduce(lambda node, part: node[part], path, values)
                rows.append((".".join(path), default, sentence))
            sentence = None
    return values, rows


def leaves(values, documented, prefix=""):
    """Keys that carry no comment and stand below none."""
    for key, value in values.items():
        path = f"{prefix}{key}"
        if path in documented:
            continue
        if isinstance(value, dict) and value:
            yield from leaves(value, documented, f"{path}.")
        else:
            yield path


def every_value_is_documented():
    values, rows = documented_values()
    missing = list(leaves(values, {key for key, _, _ in rows}))
    need(not missing, f"without a `# --` comment: {', '.join(missing)}")


def schema_node(schema, node):
    while "$ref" in node:
        node = schema["definitions"][node["$ref"].rsplit("/", 1)[1]]
    return node


def schema_keys(schema, node, prefix=""):
    for key, child in schema_node(schema, node).get("properties", {}).items():
        if child.get("deprecated"):  # Allowed only so that a template can say what it is called now.
            continue
        yield f"{prefix}{key}"
        yield from schema_keys(schema, child, f"{prefix}{key}.")


def schema_matches_values():
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    _, rows = documented_values()
    documented, keys = {key for key, _, _ in rows}, set(schema_keys(schema, schema))
    need(documented <= keys, f"values without a schema: {sorted(documented - keys)}")
    # What lies below a documented key is described by its sentence.
    stray = {key for key in keys
             if not any(key == d or key.startswith(f"{d}.") or d.startswith(f"{key}.") for d in documented)}
    need(not stray, f"in the schema, but not in values.yaml: {sorted(stray)}")


def table():
    _, rows = documented_values()
    lines = ["| Key | Default | Meaning |\n", "|---|---|---|\n"]
    for key, default, sentence in rows:
        shown = json.dumps(default)
        if len(shown) > 70:
            shown = "see values.yaml"
        lines.append(f"| `{key}` | `{shown}` | {sentence} |\n")
    return "".join(lines).replace("`see values.yaml`", "see values.yaml")


def described(schema):
    """Puts the sentences of values.yaml into the schema, for editors and helm's own messages."""
    _, rows = documented_values()
    for key, _, sentence in rows:
        node = schema
        for part in key.split("."):
            node = schema_node(schema, node)["properties"][part]
        # A definition that several components share has the sentence of the first.
        node.setdefault("description", sentence)
    return schema


def undescribed(node):
    """The schema without its descriptions, so that those of values that changed go too."""
    if isinstance(node, dict):
        return {key: undescribed(value) for key, value in node.items() if key != "description" or isinstance(value, dict)}
    return [undescribed(item) for item in node] if isinstance(node, list) else node


def schema_is_described(write):
    path = CHART / "values.schema.json"
    text = path.read_text(encoding="utf-8")
    wanted = json.dumps(described(undescribed(json.loads(text))), indent=2, ensure_ascii=False) + "\n"
    if write:
        path.write_text(wanted, encoding="utf-8")
    need(text == wanted or write, "not in step with values.yaml: run helm/validate.py --write")


def readme(write):
    path = CHART / "README.md"
    text = path.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    wanted = before + BEGIN + table() + END + rest.split(END)[1]
    if write:
        path.write_text(wanted, encoding="utf-8")
    need(text == wanted or write, "not in step with values.yaml: run helm/validate.py --write")
