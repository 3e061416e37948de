"""The API of Kubernetes over HTTP, with what kubectl hides: strict fields, dry runs and warnings."""

import http.client
import json
import ssl
import threading
import time

# How often what is not served yet is asked for, a second apart.
TRIES_MAX = 30


class Refused(Exception):
    """What the API server would not do, with its status and its reason."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


class Api:
    """One administrator's access. Each thread has a connection of its own."""

    def __init__(self, port, token, authority):
        self.port, self.token, self.authority = port, token, authority
        self.local, self.kinds, self.trust = threading.local(), {}, None

    def is_ready(self):
        try:
            return self.authority.exists() and self.call("GET", "/readyz", raw=True)[0] == "ok"
        except (OSError, http.client.HTTPException, Refused):
            return False

    def call(self, method, path, body=None, content="application/json", raw=False):
        """What the server answers, and its warnings."""
        if self.trust is None:
            self.trust = ssl.create_default_context(cafile=self.authority)
        for attempt in (1, 2):
            connection = getattr(self.local, "connection", None)
            if connection is None:
                connection = self.local.connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=self.trust, timeout=60)
            try:
                connection.request(method, path, None if body is None else json.dumps(body), {"Authorization": f"Bearer {self.token}", "Content-Type": content})
                answer = connection.getresponse()
                text = answer.read().decode()
                break
            except (OSError, http.client.HTTPException):
                connection.close()
                self.local.connection = None
                if attempt == 2:
                    raise
        if answer.status >= 300:
            try:
                message = json.loads(text).get("message", text)
            except ValueError:
                message = text
            raise Refused(answer.status, message)
        return (text if raw else json.loads(text)), answer.headers.get_all("Warning") or []

    def get(self, path):
        for _ in range(TRIES_MAX):
            try:
                return self.call("GET", path)[0]
            except Refused as refused:
                # A definition that is new or has changed is not served at once.
                if refused.status != 429:
                    raise
                time.sleep(1)
        return self.call("GET", path)[0]

    def has(self, path):
        """An object, or None where there is none."""
        try:
            return self.get(path)
        except Refused as refused:
            if refused.status != 404:
                raise
            return None

    def discover(self):
        """Learns where the objects of each version and kind are."""
        versions = ["v1"] + [version["groupVersion"] for group in self.get("/apis")["groups"] for version in group["versions"]]
        self.kinds = {}
        for version in versions:
            root = "/api/v1" if version == "v1" else f"/apis/{version}"
            for one in self.get(root)["resources"]:
                if "/" not in one["name"]:
                    self.kinds[version, one["kind"]] = (root, one["name"], one["namespaced"], one["verbs"])

    def path(self, item, namespace, name=None):
        root, plural, namespaced, _ = self.kinds[item["apiVersion"], item["kind"]]
        space = f"/namespaces/{item['metadata'].get('namespace') or namespace}" if namespaced else ""
        return f"{root}{space}/{plural}" + (f"/{name}" if name else "")

    def create(self, item, namespace="default", dry=False):
        """Creates an object; a field that the server does not know is refused. Gives the object and the warnings."""
        query = "?fieldValidation=Strict" + ("&dryRun=All" if dry else "")
        return self.call("POST", self.path(item, namespace) + query, item)

    def merge(self, path, change):
        return self.call("PATCH", path, change, content="application/merge-patch+json")[0]

    def everything(self):
        """Every object that can be listed, by version, kind, namespace and name."""
        for (version, kind), (root, plural, _, verbs) in sorted(self.kinds.items()):
            if "list" in verbs:
                for item in self.get(f"{root}/{plural}")["items"]:
                    yield version, kind, item
