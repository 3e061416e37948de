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


# Tables of settings in the reference, by what stands before them, and where they are in the schema.
SETTINGS = {
    "#### `journal.disk`": "ingest.journal.disk", "#### `journal.kafka`": "ingest.journal.kafka", "### `destinations`": "ingest.destinations",
    "`writer.influxdb_v1`:": "writer.sink.influxdb_v1", "`writer.influxdb_v2`:": "writer.sink.influxdb_v2",
    "`writer.influxdb_v3`": "writer.sink.influxdb_v3", "`writer.file`:": "writer.sink.file",
}


def schema_knows_settings():
    """Where the schema spells out a section of ingest-filter.yaml, it has the keys of the reference, and no others."""
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    reference = (CHART.parent.parent / "ingest-filter/REFERENCE-writer.md").read_text(encoding="utf-8")
    for before, path in SETTINGS.items():
        found = re.search(rf"^{re.escape(before)}.*?^\|---.*?\n(.*?)(?=^[^|])", reference, re.MULTILINE | re.DOTALL)
        need(found, f"the reference has no table after {before}")
        rows = re.findall(r"^\| (`[^|]*`) \|", found[1], re.MULTILINE)
        wanted, node = {key for row in rows for key in re.findall(r"`(\w+)`", row)}, schema
        for part in path.split("."):
            node = schema_node(schema, node)["properties"][part]
        keys = set(schema_node(schema, node)["properties"])
        need(wanted == keys, f"{path}: {sorted(wanted ^ keys)} are in the reference or in the schema alone")


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
