{{/* What the pods of all components have in common.
     Arguments: root, component (name in Kubernetes), values (the component's values). */}}

{{/* Pod metadata. Further argument: checksums (dict of annotation suffix and text whose change
     restarts the pods). Quotas and keys are none of them: they are reloaded in place. */}}
{{- define "tidegate.pod.metadata" -}}
labels:
  {{- include "tidegate.component.selector" . | nindent 2 }}
  {{- include "tidegate.lastingLabels" .root | nindent 2 }}
  {{- with .values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  kubectl.kubernetes.io/default-container: {{ .component }}
  {{- range $name, $text := .checksums }}
  checksum/{{ $name }}: {{ $text | sha256sum }}
  {{- end }}
  {{- if .root.Values.metrics.scrapeAnnotations }}
  prometheus.io/scrape: "true"
  prometheus.io/port: {{ .metricsPort | quote }}
  prometheus.io/path: {{ .metricsPath }}
  {{- end }}
  {{- with .values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* The start of a pod's spec, before its containers. */}}
{{- define "tidegate.pod.spec" -}}
serviceAccountName: {{ include "tidegate.serviceAccountName" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
terminationGracePeriodSeconds: {{ .values.terminationGracePeriodSeconds }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.dnsConfig }}
dnsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $affinity := .values.affinity | default .affinity }}
{{- with $affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $spread := .root.Values.topologySpread }}
{{- if or $spread.zone $spread.node }}
topologySpreadConstraints:
  {{- $context := . }}
  {{- range $key, $when := dict "topology.kubernetes.io/zone" $spread.zone "kubernetes.io/hostname" $spread.node }}
  {{- if $when }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: {{ $when }}
    labelSelector:
      matchLabels:
        {{- include "tidegate.component.selector" $context | nindent 8 }}
    # Old pods of a rollout do not count, or the new ones would be spread around them.
    matchLabelKeys: [pod-template-hash]
  {{- end }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Replicas and the way of replacing pods. Further argument: recreate (at most one pod may run). */}}
{{- define "tidegate.deployment.scale" -}}
{{- if not .values.autoscaling.enabled }}
replicas: {{ .values.replicas }}
{{- end }}
revisionHistoryLimit: 5
strategy:
  {{- if .recreate }}
  type: Recreate
  {{- else }}
  type: RollingUpdate
  rollingUpdate: {maxSurge: 1, maxUnavailable: 0}
  {{- end }}
selector:
  matchLabels:
    {{- include "tidegate.component.selector" . | nindent 4 }}
{{- end -}}

{{- define "tidegate.container.security" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  privileged: false
  capabilities: {drop: [ALL]}
{{- end -}}

{{/* The probes of our own services: 30 seconds to start, out of the load balancing after 4. */}}
{{- define "tidegate.container.probes" -}}
startupProbe:
  httpGet: {path: /livez, port: admin}
  periodSeconds: 1
  failureThreshold: 30
readinessProbe:
  httpGet: {path: /readyz, port: admin}
  periodSeconds: 2
  failureThreshold: 2
livenessProbe:
  httpGet: {path: /livez, port: admin}
  periodSeconds: 10
  timeoutSeconds: 2
  failureThreshold: 3
{{- end -}}

{{/* A dict of names and values as environment variables. */}}
{{- define "tidegate.container.env" -}}
{{- range $name, $value := . }}
- name: {{ $name }}
  {{- /* Numbers of values are floats, and a large one would come out as 1e+06. */}}
  {{- if and (kindIs "float64" $value) (eq (floor $value) $value) }}
  value: {{ printf "%d" (int64 $value) | quote }}
  {{- else }}
  value: {{ $value | toString | quote }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Refuses a grace period that ends before the drain does. JSON Schema cannot add.
     Arguments: component, grace, steps (list of seconds). */}}
{{- define "tidegate.checkGrace" -}}
{{- $sum := 0 -}}
{{- range .steps -}}{{- $sum = add $sum . -}}{{- end -}}
{{- if gt (int64 $sum) (int64 .grace) -}}
{{- fail (printf "%s: terminationGracePeriodSeconds is %d, but draining takes %d seconds" .component (int64 .grace) (int64 $sum)) -}}
{{- end -}}
{{- end -}}

{{/* Bytes of a Kubernetes quantity of memory. */}}
{{- define "tidegate.bytes" -}}
{{- $text := toString . -}}
{{- $number := regexFind "^[0-9]+" $text | int64 -}}
{{- $factors := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 -}}
{{- mul $number (get $factors (regexReplaceAll "^[0-9]+" $text "") | int64) -}}
{{- end -}}
