{{/* What JSON Schema cannot see: rules between values, and values that earlier versions of the chart had. */}}

{{- define "tidegate.checkValues" -}}
{{- include "tidegate.checkRenamed" . -}}
{{- include "tidegate.checkSinglePods" . -}}
{{- include "tidegate.checkSecrets" . -}}
{{- include "tidegate.checkWriter" . -}}
{{- include "tidegate.checkBudgets" . -}}
{{- include "tidegate.checkScaling" . -}}
{{- include "tidegate.checkTls" . -}}
{{- include "tidegate.checkEdge" . -}}
{{- end -}}

{{/* A key that has another name now: the render says so, in place of passing it over. */}}
{{- define "tidegate.checkRenamed" -}}
{{- if hasKey .Values.extAuthz "keysSecret" -}}
{{- fail "extAuthz.keysSecret is now extAuthz.keysSecrets, a list of names of Secrets, of which every file is read: [tidegate-keys]" -}}
{{- end -}}
{{- if hasKey .Values.ratelimit "existingQuotasConfigMap" -}}
{{- fail "ratelimit.existingQuotasConfigMap is now ratelimit.existingQuotasConfigMaps, a list of names" -}}
{{- end -}}
{{- end -}}

{{- define "tidegate.checkSinglePods" -}}
{{- if eq .Values.ingest.journal.kind "disk" -}}
{{- range $key := list "gateway" "writer" -}}
{{- if ne (include "tidegate.podsMax" (dict "root" $ "key" $key) | int64) 1 -}}
{{- fail (printf "a disk journal needs exactly one %s: set %s.replicas to 1 and its autoscaling off" $key $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (eq .Values.writer.sink.kind "file") (ne (include "tidegate.podsMax" (dict "root" . "key" "writer") | int64) 1) -}}
{{- fail "a file sink needs exactly one writer: set writer.replicas to 1 and its autoscaling off" -}}
{{- end -}}
{{- if and (eq .Values.ratelimit.backend "memory") (ne (include "tidegate.podsMax" (dict "root" . "key" "ratelimit") | int64) 1) -}}
{{- fail "ratelimit.backend memory counts in each pod for itself: set ratelimit.replicas to 1 and its autoscaling off, or use redis" -}}
{{- end -}}
{{- end -}}

{{/* A secret in clear would stand in the release and in every Deployment. */}}
{{- define "tidegate.checkSecrets" -}}
{{- range $key, $component := include "tidegate.components" . | fromYaml -}}
{{- range $name, $value := (index $.Values $key).env -}}
{{- if and (not (kindIs "map" $value)) $value (regexMatch "(?i)(^|_)(AUTH|PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY|CLIENT_ADDITIONAL_HEADERS)$" $name) -}}
{{- fail (printf "%s.env.%s would be rendered in clear: give {valueFrom: {secretKeyRef: {name: ..., key: ...}}}" $key $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "tidegate.checkTls" -}}
{{- $kafka := .Values.ingest.journal.kafka -}}
{{- if and (eq (($kafka.sasl).mechanism) "OAUTHBEARER") $kafka.create_topic (has .Values.ingest.topics.by (list "job" "services")) -}}
{{- fail (printf "a login by OAUTHBEARER cannot make topics: ingest.topics.by is %s; set strimzi, or none where they are there" .Values.ingest.topics.by) -}}
{{- end -}}
{{- $otel := .Values.otel -}}
{{- if and $otel.tls.enabled (not $otel.host) -}}
{{- fail "otel.tls needs a collector: set otel.host" -}}
{{- end -}}
{{- if and $otel.tls.clientCertificate (not (and $otel.tls.enabled $otel.tls.existingSecret)) -}}
{{- fail "otel.tls.clientCertificate needs otel.tls.enabled and a Secret with tls.crt and tls.key (otel.tls.existingSecret)" -}}
{{- end -}}
{{- if and $otel.tls.existingSecret (not $otel.tls.enabled) -}}
{{- fail "otel.tls.existingSecret is for a collector over TLS: set otel.tls.enabled" -}}
{{- end -}}
{{- $manager := .Values.tls.certManager -}}
{{- if $manager.enabled -}}
{{- if not (and .Values.tls.enabled $manager.issuerRef.name) -}}
{{- fail "tls.certManager needs tls.enabled and the name of an issuer (tls.certManager.issuerRef.name)" -}}
{{- end -}}
{{- if ge (trimSuffix "h" $manager.renewBefore | int64) (trimSuffix "h" $manager.duration | int64) -}}
{{- fail (printf "tls.certManager.renewBefore of %s leaves nothing of a certificate's %s" $manager.renewBefore $manager.duration) -}}
{{- end -}}
{{- end -}}
{{- if .Values.tls.spire.enabled -}}
{{- if or (not .Values.tls.enabled) $manager.enabled -}}
{{- fail "tls.spire needs tls.enabled, and takes the place of tls.certManager" -}}
{{- end -}}
{{- $clients := .Values.tls.spire.clients -}}
{{- if and (has "redis" $clients) .Values.ratelimit.redis.tls.clientCertificate -}}
{{- fail "tls.spire.clients has redis, whose certificate ratelimit.redis.tls names too" -}}
{{- end -}}
{{- $sink := .Values.writer.sink -}}
{{- if and (has "database" $clients) (not (hasPrefix "https://" (index $sink $sink.kind).url)) -}}
{{- fail (printf "tls.spire.clients has database: writer.sink.%s needs a url that begins with https" $sink.kind) -}}
{{- end -}}
{{- if and (has "collector" $clients) (not .Values.otel.tls.enabled) -}}
{{- fail "tls.spire.clients has collector: set otel.tls.enabled" -}}
{{- end -}}
{{- else if .Values.tls.spire.clients -}}
{{- fail "tls.spire.clients needs tls.spire.enabled" -}}
{{- end -}}
{{- if .Values.tls.enabled -}}
{{- $names := list -}}
{{- range $key := list "envoy" "extAuthz" "ratelimit" "gateway" -}}{{- $names = append $names (include "tidegate.tls.name" (dict "root" $ "key" $key)) -}}{{- end -}}
{{- if lt (len (uniq $names)) 4 -}}
{{- fail "tls tells components apart by their ServiceAccounts: give each its own (serviceAccount)" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "tidegate.checkScaling" -}}
{{- $keda := .Values.keda -}}
{{- if $keda.enabled -}}
{{- range $key := list "envoy" "writer" -}}
{{- $scale := index $keda $key -}}
{{- if gt (int64 $scale.minReplicas) (int64 $scale.maxReplicas) -}}
{{- fail (printf "keda.%s: minReplicas is above maxReplicas" $key) -}}
{{- end -}}
{{- end -}}
{{- if and (lt (int64 $keda.envoy.minReplicas) 3) (not $keda.cron.enabled) -}}
{{- fail (printf "keda.envoy.minReplicas is %d: the edge needs a pod in each of three zones, and one pod at least to have a metric" (int64 $keda.envoy.minReplicas)) -}}
{{- end -}}
{{- if and (eq (int64 $keda.writer.minReplicas) 0) (or (ne .Values.ingest.journal.kind "kafka") (ne $keda.writer.lagFrom "kafka")) -}}
{{- fail "keda.writer.minReplicas is 0, but only Kafka's lag, asked of the brokers, can wake a writer again" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "tidegate.checkWriter" -}}
{{- $sink := .Values.writer.sink -}}
{{- range $kind := list "influxdb_v1" "influxdb_v2" "influxdb_v3" "file" -}}
{{- if hasKey $.Values.writer.config $kind -}}
{{- fail (printf "writer.config.%s would be a second target: set writer.sink.kind to %s, and writer.sink.%s" $kind $kind $kind) -}}
{{- end -}}
{{- end -}}
{{- $target := index $sink $sink.kind -}}
{{- if and (eq $sink.kind "influxdb_v2") (not (include "tidegate.sinkAuth" .)) (not $target.token_file) -}}
{{- fail "writer.sink.influxdb_v2 needs a token: set writer.sink.auth.existingSecret" -}}
{{- end -}}
{{- if and (eq $sink.kind "influxdb_v1") (include "tidegate.sinkAuth" .) (not $target.username) -}}
{{- fail "writer.sink.auth holds a password for InfluxDB 1.x, which needs writer.sink.influxdb_v1.username" -}}
{{- end -}}
{{- $pods := include "tidegate.podsMax" (dict "root" . "key" "writer") | int64 -}}
{{- if eq .Values.ingest.journal.kind "kafka" -}}
{{- $kafka := .Values.ingest.journal.kafka -}}
{{- if and $kafka.group_instance_id (gt $pods 1) (not (contains "{hostname}" $kafka.group_instance_id)) -}}
{{- fail "ingest.journal.kafka.group_instance_id names one writer: with several they would take the partitions from each other, unless {hostname} is in it" -}}
{{- end -}}
{{- with $kafka.create_topic -}}
{{- if gt $pods (int64 .partitions) -}}
{{- fail (printf "there may be %d writers, but the topic gets %d partitions: the others would have nothing to do" $pods (int64 .partitions)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
