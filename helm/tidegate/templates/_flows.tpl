{{/* Who speaks to whom: one list, from which the policies of both flavours are made. */}}

{{/* The `host:port` of an address of Redis or Kafka, as JSON. The name of a sentinel's master has no port. */}}
{{- define "tidegate.addresses" -}}
{{- $found := list -}}
{{- range splitList "," . -}}
{{- $address := trim . | trimPrefix "redis://" | trimPrefix "rediss://" -}}
{{- if regexMatch ":[0-9]+$" $address -}}{{- $found = append $found $address -}}{{- end -}}
{{- end -}}
{{- $found | uniq | toJson -}}
{{- end -}}

{{/* A flow to addresses outside the release, as JSON. Arguments: addresses (list), peers, ports (in place
     of those in the addresses), protocol. */}}
{{- define "tidegate.flowTo" -}}
{{- $hosts := list -}}
{{- $ports := list -}}
{{- range .addresses -}}
{{- $hosts = append $hosts (regexReplaceAll ":[0-9]+$" . "") -}}
{{- $ports = append $ports (regexFind "[0-9]+$" . | int64) -}}
{{- end -}}
{{- dict "hosts" (uniq $hosts) "peers" (.peers | default list) "ports" (.ports | default (uniq $ports)) "protocol" (.protocol | default "TCP") "names" (.names | default list) | toJson -}}
{{- end -}}

{{/* The flows of every component, as JSON: {ingress: {key: [flow]}, egress: {key: [flow]}}. A flow has ports,
     a protocol, and one of: component (one of ours), peers (NetworkPolicy peers; empty for anyone) with
     hosts (their names, where peers are empty). */}}
{{- define "tidegate.flows" -}}
{{- $policy := .Values.networkPolicy -}}
{{- $ports := include "tidegate.ports" . | fromYaml -}}
{{- $limit := .Values.ratelimit -}}
{{- $toAuthz := dict "component" "ext-authz" "ports" (list $ports.extAuthz.grpc) "protocol" "TCP" -}}
{{- $toLimit := dict "component" "ratelimit-svc" "ports" (list $ports.ratelimit.grpc) "protocol" "TCP" -}}
{{- $toGateway := dict "component" "gateway" "ports" (list $ports.gateway.http) "protocol" "TCP" -}}
{{- $egress := dict "envoy" (list $toAuthz $toLimit $toGateway) "extAuthz" list "ratelimit" list "gateway" list "writer" list -}}
{{- if eq $limit.backend "redis" -}}
{{- $urls := list (include "tidegate.envText" (dict "env" $limit.env "key" "REDIS_URL" "default" $limit.redis.url)) -}}
{{- with include "tidegate.envText" (dict "env" $limit.env "key" "REDIS_PERSECOND_URL" "default" $limit.redis.perSecond.url) -}}
{{- $urls = append $urls . -}}
{{- end -}}
{{- $addresses := include "tidegate.addresses" (join "," $urls) | fromJsonArray -}}
{{- $redis := include "tidegate.flowTo" (dict "addresses" $addresses "peers" $policy.redisTo "ports" $policy.redisPorts) | fromJson -}}
{{- $_ := set $egress "ratelimit" (append $egress.ratelimit $redis) -}}
{{- end -}}
{{- if eq (include "tidegate.envText" (dict "env" $limit.env "key" "CONFIG_TYPE" "default" "FILE") | upper) "GRPC_XDS_SOTW" -}}
{{- $plane := include "tidegate.envText" (dict "env" $limit.env "key" "CONFIG_GRPC_XDS_SERVER_URL" "default" "localhost:18000") -}}
{{- $flow := include "tidegate.flowTo" (dict "addresses" (list $plane) "peers" $policy.controlTo) | fromJson -}}
{{- $_ := set $egress "ratelimit" (append $egress.ratelimit $flow) -}}
{{- end -}}
{{- $dog := eq (include "tidegate.envText" (dict "env" $limit.env "key" "USE_DOG_STATSD" "default" "false")) "true" -}}
{{- if or $dog (eq (include "tidegate.envText" (dict "env" $limit.env "key" "USE_STATSD" "default" "false")) "true") -}}
{{- $host := include "tidegate.envText" (dict "env" $limit.env "key" "STATSD_HOST" "default" "localhost") -}}
{{- $port := include "tidegate.envText" (dict "env" $limit.env "key" "STATSD_PORT" "default" "8125") -}}
{{- $protocol := include "tidegate.envText" (dict "env" $limit.env "key" "STATSD_PROTOCOL" "default" (ternary "udp" "tcp" $dog)) | upper -}}
{{- $flow := include "tidegate.flowTo" (dict "addresses" (list (printf "%s:%s" $host $port)) "peers" $policy.controlTo "protocol" $protocol) | fromJson -}}
{{- $_ := set $egress "ratelimit" (append $egress.ratelimit $flow) -}}
{{- end -}}
{{- with (.Values.extAuthz.config.redis | default dict).address -}}
{{- $keys := include "tidegate.flowTo" (dict "addresses" (list .) "peers" $policy.redisTo "ports" $policy.redisPorts) | fromJson -}}
{{- $_ := set $egress "extAuthz" (append $egress.extAuthz $keys) -}}
{{- end -}}
{{- if eq .Values.ingest.journal.kind "kafka" -}}
{{- $brokers := include "tidegate.addresses" .Values.ingest.journal.kafka.brokers | fromJsonArray -}}
{{- $kafka := include "tidegate.flowTo" (dict "addresses" $brokers "peers" $policy.kafkaTo "ports" $policy.kafkaPorts "names" $policy.cilium.kafkaNames) | fromJson -}}
{{- $kafka = set $kafka "kafka" true -}}
{{- $_ := set $egress "gateway" (append $egress.gateway $kafka) -}}
{{- $_ := set $egress "writer" (append $egress.writer $kafka) -}}
{{- end -}}
{{- if ne .Values.writer.sink.kind "file" -}}
{{- $url := urlParse (index .Values.writer.sink .Values.writer.sink.kind).url -}}
{{- $address := ternary $url.host (printf "%s:%s" $url.host (ternary "443" "80" (eq $url.scheme "https"))) (regexMatch ":[0-9]+$" $url.host) -}}
{{- $database := include "tidegate.flowTo" (dict "addresses" (list $address) "peers" $policy.databaseTo "ports" $policy.databasePorts) | fromJson -}}
{{- $_ := set $egress "writer" (append $egress.writer (set $database "database" true)) -}}
{{- end -}}
{{- if .Values.otel.host -}}
{{- $spans := include "tidegate.flowTo" (dict "addresses" (list (printf "%s:%d" .Values.otel.host (int64 .Values.otel.port))) "peers" $policy.otelTo) | fromJson -}}
{{- range $key := keys $egress -}}{{- $_ := set $egress $key (append (index $egress $key) $spans) -}}{{- end -}}
{{- end -}}
{{- if .Values.aws.enabled -}}
{{- range $key := keys .Values.aws.roles -}}
{{- if $policy.awsTo -}}
{{- $_ := set $egress $key (append (index $egress $key) (dict "peers" $policy.awsTo "hosts" list "names" list "ports" (list 443) "protocol" "TCP")) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $fromEnvoy := dict "component" "envoy" "protocol" "TCP" -}}
{{- $ingress := dict
  "envoy" (list (dict "peers" $policy.edgeFrom "ports" (ternary (list $ports.envoy.edge $ports.envoy.edgeTls) (list $ports.envoy.edge) .Values.tls.edge.enabled) "protocol" "TCP"))
  "extAuthz" (list (set (deepCopy $fromEnvoy) "ports" (list $ports.extAuthz.grpc)))
  "ratelimit" (list (set (deepCopy $fromEnvoy) "ports" (list $ports.ratelimit.grpc)))
  "gateway" (list (set (deepCopy $fromEnvoy) "ports" (list $ports.gateway.http)))
  "writer" list -}}
{{- if and .Values.envoy.breakGlass.enabled $policy.breakGlassFrom -}}
{{- $glass := dict "peers" $policy.breakGlassFrom "ports" (list $ports.envoy.breakGlass) "protocol" "TCP" -}}
{{- $_ := set $ingress "envoy" (append $ingress.envoy $glass) -}}
{{- end -}}
{{- if $policy.metricsFrom -}}
{{- range $key := keys $ingress -}}
{{- $admin := index $ports $key (ternary "status" "admin" (eq $key "envoy")) -}}
{{- $page := ternary "/stats/prometheus" "/metrics" (eq $key "envoy") -}}
{{- $scrape := dict "peers" $policy.metricsFrom "ports" (list $admin) "protocol" "TCP" "page" $page -}}
{{- $_ := set $ingress $key (append (index $ingress $key) $scrape) -}}
{{- end -}}
{{- end -}}
{{- dict "ingress" $ingress "egress" $egress | toJson -}}
{{- end -}}

{{/* The text of an environment variable that a user sets, or what the chart sets. One taken from elsewhere
     (valueFrom) is not known here. Arguments: env, key, default. */}}
{{- define "tidegate.envText" -}}
{{- $given := get .env .key -}}
{{- if kindIs "map" $given -}}{{- "" -}}
{{- else if hasKey .env .key -}}{{- include "tidegate.number" $given -}}
{{- else -}}{{- .default -}}
{{- end -}}
{{- end -}}

{{/* A value as text, a whole number without an exponent. */}}
{{- define "tidegate.number" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) -}}{{- printf "%d" (int64 .) -}}{{- else -}}{{- toString . -}}{{- end -}}
{{- end -}}
