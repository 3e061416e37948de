"""Values that must be refused, and the words that the message must hold."""


def quotas(classes, name="a"):
    """An assignment of a quota file with these priority classes."""
    text = f"domain: {name}\npriority_classes: {{{classes}}}\n"
    return f"ratelimit.quotas.{name}\\.yaml=" + text.replace("\\", "\\\\").replace(",", "\\,")


# Values that the schema must refuse, and what the message must name.
BY_SCHEMA = [
    ("an unknown key", ["envoy.replica=3"], "replica"),
    ("an unknown key at the top", ["redis.url=redis:6379"], "redis"),
    ("the tag latest", ["image.tag=latest"], "tag"),
    ("the tag latest of Envoy", ["envoy.image.tag=latest"], "tag"),
    ("a digest that is none", ["image.digest=sha256:1234"], "digest"),
    ("missing limits", ["gateway.resources.limits=null"], "limits"),
    ("a missing memory request", ["writer.resources.requests.memory=null"], "memory"),
    ("a toleration of db", ["gateway.tolerations[0].key=db"], "tolerations"),
    ("a negative number of replicas", ["extAuthz.replicas=-1"], "replicas"),
    ("replicas in words", ["extAuthz.replicas=three"], "replicas"),
    ("a grace period above 110 s", ["envoy.terminationGracePeriodSeconds=120"], "terminationGracePeriodSeconds"),
    ("a share above 100 percent", ["envoy.ratelimitOutage.denyPercent=101"], "denyPercent"),
    ("a break-glass listener without its Secret", ["envoy.breakGlass.secret="], "secret"),
    ("a time without its unit", ["envoy.timeouts.ratelimit=50"], "ratelimit"),
    ("a Redis without its port", ["ratelimit.redis.url=redis"], "url"),
    ("an unknown backend", ["ratelimit.backend=memcache"], "backend"),
    ("an unknown journal", ["ingest.journal.kind=nats"], "kind"),
    ("an unknown journal key", ["ingest.journal.kafka.topics=a"], "topics"),
    ("brokers without ports", ["ingest.journal.kafka.brokers=kafka"], "brokers"),
    ("an unknown sink", ["writer.sink.kind=influxdb_v9"], "kind"),
    ("a sink without its url", ["writer.sink.influxdb_v1.url=null"], "url"),
    ("a database over https", ["writer.sink.influxdb_v1.url=https://influxdb:8086"], "url"),
    ("a mount by subPath", ["gateway.extraVolumeMounts[0].name=a,gateway.extraVolumeMounts[0].mountPath=/a,gateway.extraVolumeMounts[0].subPath=b"], "extraVolumeMounts"),
    ("an outage policy that is none", ["ratelimit.outageByClass.gold=open"], "gold"),
    ("a class that is no name", ["ratelimit.outageByClass.a|b=bypass"], "a|b"),
    ("a public load balancer", ["envoy.service.type=LoadBalancer"], "type"),
    ("a distroless Envoy, whose hook has no shell", ["envoy.image.tag=distroless-v1.40.0"], "tag"),
    ("labels of pods that selectors go by", ["gateway.podLabels.app\\.kubernetes\\.io/name=other"], "app.kubernetes.io/name"),
    ("a further container without limits", ["gateway.extraContainers[0].name=a,gateway.extraContainers[0].image=a:1"], "extraContainers"),
    ("a further container of no version", ["gateway.initContainers[0].name=a,gateway.initContainers[0].image=a"], "initContainers"),
    ("an unknown flavour of policies", ["networkPolicy.flavour=calico"], "flavour"),
    ("a pepper version that is no number", ["extAuthz.pepperSecret.versions.new=pepper"], "new"),
]

# Values that are each right and together wrong: templates refuse them, with this message.
BY_RULE = [
    ("a drain longer than the grace period", ["extAuthz.drain.timeoutSeconds=40"], "extAuthz: terminationGracePeriodSeconds is 30, but draining takes 50 seconds"),
    ("an Envoy drain longer than the grace period", ["envoy.drain.delaySeconds=30"], "envoy: terminationGracePeriodSeconds is 60, but draining takes 65 seconds"),
    ("a heap above the memory limit", ["envoy.heapBytesMax=1073741824"], "which the memory limit of 1Gi does not hold"),
    ("a gateway too small for its budgets", ["gateway.resources.limits.memory=128Mi,gateway.resources.requests.memory=128Mi"], "gateway.resources.limits.memory is 128Mi, but requests, the journal's queue"),
    ("budgets that its limit does not hold", ["gateway.config.memory_bytes_max=900MiB"], "may take 1197Mi"),
    ("a decoded body of more than a quarter of the budget", ["gateway.config.decoded_bytes_max=128MiB"], "less than four times decoded_bytes_max of 128MiB"),
    ("a writer too small for its partitions", ["writer.replicas=2,writer.resources.limits.memory=400Mi"], "writer.resources.limits.memory is 400Mi, but reading ahead, the batches of 24 partitions"),
    ("more writers than partitions", ["writer.replicas=25"], "there may be 25 writers, but the topic gets 24 partitions"),
    ("a CPU limit that outlasts Envoy's wait", ["ratelimit.resources.limits.cpu=500m"], "stopped for up to 50 ms, and Envoy waits 50 ms"),
    ("too little memory for keys", ["extAuthz.resources.limits.memory=100Mi"], "it needs 128Mi at least"),
    ("one name for several writers", ["ingest.journal.kafka.group_instance_id=a"], "would take the partitions from each other"),
    ("a second target", ["writer.config.influxdb_v2.url=http://a:1"], "set writer.sink.kind to influxdb_v2"),
    ("InfluxDB 2 without a token", ["writer.sink.kind=influxdb_v2"], "needs a token: set writer.sink.auth.existingSecret"),
    ("a password without its user", ["writer.sink.auth.existingSecret=a"], "which needs writer.sink.influxdb_v1.username"),
    ("a password in clear", ["ratelimit.env.REDIS_AUTH=hunter2"], "ratelimit.env.REDIS_AUTH would be rendered in clear"),
    ("a key that has another name now", ["extAuthz.keysSecret.name=a"], "extAuthz.keysSecret is now extAuthz.keysSecrets"),
    ("another key that has another name now", ["ratelimit.existingQuotasConfigMap=a"], "is now ratelimit.existingQuotasConfigMaps"),
    ("counters in the memory of three pods", ["ratelimit.backend=memory"], "counts in each pod for itself"),
    ("a disk journal of three gateways", ["ingest.journal.kind=disk"], "a disk journal needs exactly one gateway"),
    ("a file written by three pods", ["writer.sink.kind=file"], "a file sink needs exactly one writer"),
    ("autoscaling by nothing", ["gateway.autoscaling.enabled=true,gateway.autoscaling.cpuPercent=0,gateway.autoscaling.memoryPercent=0"], "cpuPercent and memoryPercent are both 0"),
    ("a class that would break out of a regular expression", [quotas("'gold|.*': {rank: 1}")], 'priority class "gold|.*" must be 1 to 63 lower-case letters'),
    ("a class with a line break", [quotas('"gold\\n": {rank: 1}')], "must be 1 to 63 lower-case letters"),
    ("a class that is no map", [quotas("gold: bypass")], "priority class 'gold' must be a map"),
    ("an unknown outage policy", [quotas("gold: {outage: open}")], "outage of priority class 'gold' must be bypass, local or deny"),
    ("classes that are no map", ["ratelimit.quotas.a\\.yaml=priority_classes: 7"], "priority_classes must be a map"),
    ("quotas that are not YAML", ["ratelimit.quotas.a\\.yaml=domain: ["], "ratelimit.quotas.a.yaml is not YAML"),
    ("two files with other classes", [quotas("gold: {rank: 1}"), quotas("iron: {rank: 1}", "b")], "ratelimit.quotas.b.yaml: priority_classes differ from those in a.yaml"),
    ("an outage policy that the quotas contradict", [quotas("gold: {outage: bypass}"), "ratelimit.outageByClass.gold=deny"], 'ratelimit.outageByClass says {"gold":"deny"}, but ratelimit.quotas say {"gold":"bypass"}'),
    ("an outage policy that the shipped classes contradict", ["ratelimit.outageByClass.gold=deny"], "but ratelimit.quotas say"),
    ("a class of keys that is none of quotas", ["extAuthz.config.priority_classes={ingest,gold}"], "extAuthz.config.priority_classes has 'gold'"),
    ("more pods at least than at most", ["gateway.autoscaling.enabled=true,gateway.autoscaling.minReplicas=20"], "minReplicas is above maxReplicas"),
]
