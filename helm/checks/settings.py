"""The schema of values against the settings that the services have: one that is missing there cannot be set by the chart."""

import json
import re

from . import CHART, HELM, need

ROOT = HELM.parent
# Of a section of values, the Rust type that reads it, and what is not for it: a broker is known by its host.
SECTIONS = [
    (("ingest", "journal", "kafka"), "ingest-filter/src/journal/config.rs", "RawKafkaJournal", set()),
    (("ingest", "journal", "kafka", "sasl"), "ingest-filter/src/journal/config/security.rs", "RawSasl", set()),
    (("ingest", "journal", "kafka", "tls"), "chassis/src/tls/client_settings.rs", "RawClientTls", {"server_name", "server_san"}),
    (("ingest", "journal", "kafka", "create_topic"), "ingest-filter/src/journal/config/topics.rs", "RawCreateTopic", set()),
    (("ingest", "journal", "disk"), "ingest-filter/src/journal/config.rs", "RawDiskJournal", set()),
    *((("writer", "sink", f"influxdb_v{version}"), "ingest-filter/src/writer/config.rs", f"RawInfluxdbV{version}", set()) for version in (1, 2, 3)),
    (("writer", "sink", "influxdb_v1", "tls"), "chassis/src/tls/client_settings.rs", "RawClientTls", set()),
]


def fields(file, name):
    """The keys that a Rust struct reads."""
    text = (ROOT / file).read_text(encoding="utf-8")
    [body] = re.findall(rf"^pub(?:\(\w+\))? struct {name} \{{\n(.*?)^\}}", text, re.MULTILINE | re.DOTALL) or [None]
    need(body is not None, f"{file} has no struct {name}")
    return set(re.findall(r"^    (?:pub(?:\(\w+\))? )?(\w+):", body, re.MULTILINE))


def node(schema, path):
    found = schema
    for key in path:
        found = found["properties"][key]
        while "$ref" in found:
            found = schema["definitions"][found["$ref"].rsplit("/", 1)[1]]
    return found


def are_all_in_the_schema():
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    for path, file, name, without in SECTIONS:
        there, wanted = node(schema, path)["properties"].keys(), fields(file, name) - without
        need(there == wanted, f"{'.'.join(path)}: the schema has {sorted(there - wanted)} too many and lacks {sorted(wanted - there)}")
