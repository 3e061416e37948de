{{/* The topics of the journal, for those that make them in place of the services. */}}

{{/* The streams of records as JSON, each with its topic, group and dead letters: one for each topic that metrics, logs and traces have. */}}
{{- define "tidegate.streams" -}}
{{- $kafka := .Values.ingest.journal.kafka -}}
{{- $records := $kafka.topic | default "tidegate-points" -}}
{{- $group := $kafka.group | default "tidegate-writer" -}}
{{- $streams := list (dict "signal" "metrics" "topic" $records "group" $group "letters" ($kafka.dead_letter_topic | default (printf "%s-dead-letter" $records))) -}}
{{- $seen := list $records -}}
{{- range $signal := list "logs" "traces" -}}
{{- $topic := index $kafka (printf "%s_topic" $signal) | default (printf "%s-%s" $records $signal) -}}
{{- if not (has $topic $seen) -}}
{{- $streams = append $streams (dict "signal" $signal "topic" $topic "group" (printf "%s-%s" $group $signal) "letters" (printf "%s-dead-letter" $topic)) -}}
{{- $seen = append $seen $topic -}}
{{- end -}}
{{- end -}}
{{- $streams | toJson -}}
{{- end -}}

{{/* Each topic's name, partitions and settings beyond those of all, as JSON: what the services would make. */}}
{{- define "tidegate.topics" -}}
{{- $kafka := .Values.ingest.journal.kafka -}}
{{- $bytes := include "tidegate.sizeBytes" ($kafka.message_bytes_max | default "1048588B") | int64 -}}
{{- $topics := list -}}
{{- range $stream := include "tidegate.streams" . | fromJsonArray -}}
{{- $topics = concat $topics (list
  (dict "name" $stream.topic "partitions" (int64 $kafka.create_topic.partitions) "config" (dict "max.message.bytes" $bytes))
  (dict "name" $stream.letters "partitions" 1 "config" (dict "max.message.bytes" (add $bytes 65536)))) -}}
{{- end -}}
{{- append $topics (dict "name" ($kafka.types_topic | default (printf "%s-types" ($kafka.topic | default "tidegate-points"))) "partitions" 1
    "config" (dict "max.message.bytes" $bytes "retention.ms" -1 "retention.bytes" -1)) | toJson -}}
{{- end -}}

{{/* TLS of the clients of Kafka, as JSON; nothing in it where there is none. */}}
{{- define "tidegate.kafka.tls" -}}
{{- include "tidegate.spire.section" (dict "root" . "of" "kafka" "section" .Values.ingest.journal.kafka.tls "where" "ingest.journal.kafka.tls") -}}
{{- end -}}

{{/* The Job's spec. Arguments: root, labels, container. */}}
{{- define "tidegate.topics.job" -}}
{{- $root := .root -}}
{{- $asks := include "tidegate.spire.client" (dict "root" $root "of" "kafka") -}}
backoffLimit: 3
activeDeadlineSeconds: {{ mul 4 $root.Values.ingest.topics.timeoutSeconds }}
template:
  metadata:
    labels:
      {{- toYaml .labels | nindent 6 }}
      {{- include "tidegate.lastingLabels" $root | nindent 6 }}
  spec:
    restartPolicy: Never
    automountServiceAccountToken: false
    enableServiceLinks: false
    {{- if $asks }}
    # The brokers know it as a gateway, which needs the same topics.
    serviceAccountName: {{ include "tidegate.serviceAccountName" (dict "root" $root "component" "gateway" "values" $root.Values.gateway) }}
    {{- end }}
    {{- with $root.Values.imagePullSecrets }}
    imagePullSecrets:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with $root.Values.podSecurityContext }}
    securityContext:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    containers:
      - name: topics
        image: {{ include "tidegate.ourImage" $root }}
        imagePullPolicy: {{ $root.Values.image.pullPolicy }}
        command: [/usr/local/bin/ingest-filter]
        args: [topics, --config, /etc/tidegate/config/topics.yaml, --within, {{ $root.Values.ingest.topics.timeoutSeconds | quote }}]
        {{- include "tidegate.container.bounds" .container | nindent 8 }}
        volumeMounts:
          - {name: config, mountPath: /etc/tidegate/config, readOnly: true}
          {{- if $root.Values.ingest.journal.kafkaSecret }}
          - {name: kafka, mountPath: /etc/tidegate/kafka, readOnly: true}
          {{- end }}
          {{- if $asks }}
          - {name: spiffe, mountPath: /spiffe-workload-api, readOnly: true}
          {{- end }}
    volumes:
      - name: config
        configMap: {name: {{ include "tidegate.fullname" $root }}-topics}
      {{- with $root.Values.ingest.journal.kafkaSecret }}
      - name: kafka
        secret: {secretName: {{ . }}, defaultMode: 0440}
      {{- end }}
      {{- if $asks }}
      - name: spiffe
        csi: {driver: csi.spiffe.io, readOnly: true}
      {{- end }}
{{- end -}}
