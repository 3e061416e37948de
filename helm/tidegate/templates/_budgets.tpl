{{/* What each service may use, from the limits of its container, and refusals where that is too little. */}}

{{/* Thousandths of a core of a Kubernetes quantity of CPU. */}}
{{- define "tidegate.millicores" -}}
{{- $text := toString . -}}
{{- if hasSuffix "m" $text -}}{{- trimSuffix "m" $text | float64 | ceil | int64 -}}
{{- else -}}{{- mulf ($text | float64) 1000 | ceil | int64 -}}
{{- end -}}
{{- end -}}

{{/* Threads that a CPU limit holds: whole cores, rounded up. */}}
{{- define "tidegate.cores" -}}
{{- divf (include "tidegate.millicores" . | float64) 1000 | ceil | int64 -}}
{{- end -}}

{{/* Bytes of a Kubernetes quantity of memory. */}}
{{- define "tidegate.bytes" -}}
{{- $text := include "tidegate.number" . -}}
{{- $number := regexFind "^[0-9]+" $text | int64 -}}
{{- $factors := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 -}}
{{- mul $number (get $factors (regexReplaceAll "^[0-9]+" $text "") | int64) -}}
{{- end -}}

{{/* Bytes of a size in the services' files, such as `64MiB`. */}}
{{- define "tidegate.sizeBytes" -}}
{{- $number := regexFind "^[0-9.]+" . | float64 -}}
{{- $factors := dict "B" 1 "KiB" 1024 "MiB" 1048576 "GiB" 1073741824 -}}
{{- mulf $number (get $factors (regexReplaceAll "^[0-9.]+" . "") | float64) | int64 -}}
{{- end -}}

{{/* A part of a component's memory limit in MiB, at most a bound. Arguments: values, percent, most. */}}
{{- define "tidegate.shareOfMemory" -}}
{{- $share := div (mul (include "tidegate.bytes" .values.resources.limits.memory | int64) .percent) 104857600 -}}
{{- if .most -}}{{- $share = min $share .most -}}{{- end -}}
{{- $share -}}
{{- end -}}

{{/* Heap at which Envoy refuses requests. */}}
{{- define "tidegate.envoy.heap" -}}
{{- $limit := include "tidegate.bytes" .resources.limits.memory | int64 -}}
{{- if .heapBytesMax -}}{{- int64 .heapBytesMax -}}{{- else -}}{{- div (mul $limit 3) 4 -}}{{- end -}}
{{- end -}}

{{/* The journal's section: a fifth of the gateway's memory is for its queue, a quarter of the writer's for reading ahead. */}}
{{- define "tidegate.ingest.journal" -}}
{{- $journal := .Values.ingest.journal -}}
{{- $section := dict
  "queue_bytes_max" (printf "%sMiB" (include "tidegate.shareOfMemory" (dict "values" .Values.gateway "percent" 20)))
  "read_ahead_bytes" (printf "%sMiB" (include "tidegate.shareOfMemory" (dict "values" .Values.writer "percent" 25))) -}}
{{- $section = mergeOverwrite $section (deepCopy (index $journal $journal.kind)) -}}
{{- if eq $journal.kind "kafka" -}}
{{- with include "tidegate.kafka.tls" . | fromJson -}}{{- $_ := set $section "tls" . -}}{{- end -}}
{{- end -}}
{{- /* Who does not make the topics has to know what they must be. */ -}}
{{- if and $section.create_topic (ne .Values.ingest.topics.by "services") -}}
{{- $section = omit (merge $section (dict "replication_factor_min" $section.create_topic.replication_factor)) "create_topic" -}}
{{- end -}}
{{- $section | toJson -}}
{{- end -}}

{{/* The gateway's limits of memory. */}}
{{- define "tidegate.gateway.budget" -}}
{{- $memory := include "tidegate.shareOfMemory" (dict "values" .Values.gateway "percent" 40) | int64 -}}
{{- $decoded := min 64 (div $memory 4) -}}
{{- dict
  "memory_bytes_max" (printf "%dMiB" $memory)
  "decoded_bytes_max" (printf "%dMiB" $decoded)
  "body_bytes_max" (printf "%dMiB" (min 32 (max 1 (div $decoded 2)))) | toJson -}}
{{- end -}}

{{/* The writer's limit of memory for batches. */}}
{{- define "tidegate.writer.budget" -}}
{{- $batches := include "tidegate.shareOfMemory" (dict "values" .Values.writer "percent" 40) | int64 -}}
{{- dict "batches_bytes_max" (printf "%dMiB" (max 16 $batches)) | toJson -}}
{{- end -}}

{{/* Fewest pods of a component. Arguments: root, key (of the component in values). */}}
{{- define "tidegate.podsMin" -}}
{{- $values := index .root.Values .key -}}
{{- if include "tidegate.byKeda" . -}}{{- (index .root.Values.keda .key).minReplicas | int64 -}}
{{- else -}}{{- ternary $values.autoscaling.minReplicas $values.replicas $values.autoscaling.enabled | int64 -}}
{{- end -}}
{{- end -}}

{{/* Most pods of a component. Arguments: root, key. */}}
{{- define "tidegate.podsMax" -}}
{{- $values := index .root.Values .key -}}
{{- if include "tidegate.byKeda" . -}}{{- (index .root.Values.keda .key).maxReplicas | int64 -}}
{{- else -}}{{- ternary $values.autoscaling.maxReplicas $values.replicas $values.autoscaling.enabled | int64 -}}
{{- end -}}
{{- end -}}

{{/* "true" where KEDA owns the number of pods. Arguments: root, key (of the component in values). */}}
{{- define "tidegate.byKeda" -}}
{{- if and .root.Values.keda.enabled (has .key (list "envoy" "writer")) -}}true{{- end -}}
{{- end -}}

{{/* Refuses limits that do not hold what the settings in force may take. */}}
{{- define "tidegate.checkBudgets" -}}
{{- $room := 67108864 -}}
{{- $envoy := .Values.envoy -}}
{{- $limit := include "tidegate.bytes" $envoy.resources.limits.memory | int64 -}}
{{- $heap := include "tidegate.envoy.heap" $envoy | int64 -}}
{{- if or (gt $heap (sub $limit (div $limit 8))) (lt $heap 67108864) -}}
{{- fail (printf "envoy.heapBytesMax is %d, which the memory limit of %s does not hold: leave an eighth of it, and at least 64 MiB of heap" $heap (toString $envoy.resources.limits.memory)) -}}
{{- end -}}
{{- range $key := list "extAuthz" "ratelimit" -}}
{{- $memory := (index $.Values $key).resources.limits.memory -}}
{{- if lt (include "tidegate.bytes" $memory | int64) 134217728 -}}
{{- fail (printf "%s.resources.limits.memory is %s: it needs 128Mi at least" $key (toString $memory)) -}}
{{- end -}}
{{- end -}}
{{- $stop := subf 100 (divf (include "tidegate.millicores" .Values.ratelimit.resources.limits.cpu | float64) 10) -}}
{{- $wait := mulf (trimSuffix "s" $envoy.timeouts.ratelimit | float64) 1000 -}}
{{- if and (gt $stop 0.0) (ge $stop $wait) -}}
{{- fail (printf "ratelimit.resources.limits.cpu is %s: a process that has used it up is stopped for up to %.0f ms, and Envoy waits %.0f ms (envoy.timeouts.ratelimit)" (toString .Values.ratelimit.resources.limits.cpu) $stop $wait) -}}
{{- end -}}
{{- $journal := include "tidegate.ingest.journal" . | fromJson -}}
{{- $gateway := mergeOverwrite (include "tidegate.gateway.budget" . | fromJson) (deepCopy .Values.gateway.config) -}}
{{- $requests := include "tidegate.sizeBytes" $gateway.memory_bytes_max | int64 -}}
{{- $decoded := include "tidegate.sizeBytes" $gateway.decoded_bytes_max | int64 -}}
{{- if lt $requests (mul 4 $decoded) -}}
{{- fail (printf "gateway.config: memory_bytes_max of %s is less than four times decoded_bytes_max of %s" $gateway.memory_bytes_max $gateway.decoded_bytes_max) -}}
{{- end -}}
{{- $queue := include "tidegate.sizeBytes" $journal.queue_bytes_max | int64 -}}
{{- $pinned := mul (default 200000 $gateway.fields_pinned_max | int64) 150 -}}
{{- $sum := add $requests $queue $pinned $room -}}
{{- $given := .Values.gateway.resources.limits.memory -}}
{{- if gt $sum (include "tidegate.bytes" $given | int64) -}}
{{- fail (printf "gateway.resources.limits.memory is %s, but requests, the journal's queue, types of fields and the process itself may take %dMi" (toString $given) (div (add $sum 1048575) 1048576)) -}}
{{- end -}}
{{- $writer := mergeOverwrite (include "tidegate.writer.budget" . | fromJson) (deepCopy .Values.writer.config) -}}
{{- $batches := include "tidegate.sizeBytes" $writer.batches_bytes_max | int64 -}}
{{- $ahead := include "tidegate.sizeBytes" $journal.read_ahead_bytes | int64 -}}
{{- $sum = add $ahead $batches $room -}}
{{- $given = .Values.writer.resources.limits.memory -}}
{{- if gt $sum (include "tidegate.bytes" $given | int64) -}}
{{- fail (printf "writer.resources.limits.memory is %s, but reading ahead, batches and the process itself may take %dMi" (toString $given) (div (add $sum 1048575) 1048576)) -}}
{{- end -}}
{{- end -}}
