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
{{- with include "tidegate.priorityClassName" . }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.hostAliases }}
hostAliases:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
terminationGracePeriodSeconds: {{ .values.terminationGracePeriodSeconds }}
{{- with .root.Values.podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
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
    {{- if and $spread.minDomains (eq $when "DoNotSchedule") (hasSuffix "/zone" $key) }}
    minDomains: {{ $spread.minDomains }}
    {{- end }}
    # The nodes of a zone that is lost are tainted, and no longer a place that is short of pods.
    nodeTaintsPolicy: Honor
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
{{- if not (or .values.autoscaling.enabled (include "tidegate.byKeda" (dict "root" .root "key" .component))) }}
replicas: {{ .values.replicas }}
{{- end }}
revisionHistoryLimit: 5
progressDeadlineSeconds: {{ .values.progressDeadlineSeconds }}
{{- with .values.minReadySeconds }}
minReadySeconds: {{ . }}
{{- end }}
strategy:
  {{- if .recreate }}
  type: Recreate
  {{- else if .values.strategy }}
  {{- toYaml .values.strategy | nindent 2 }}
  {{- else }}
  type: RollingUpdate
  rollingUpdate: {maxSurge: 1, maxUnavailable: 0}
  {{- end }}
selector:
  matchLabels:
    {{- include "tidegate.component.selector" . | nindent 4 }}
{{- end -}}

{{/* Further settings of a component's container. Arguments: root, values. */}}
{{- define "tidegate.container.bounds" -}}
{{- with .values.envFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
resources:
  {{- toYaml .values.resources | nindent 2 }}
{{- with .root.Values.containerSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Containers that a user adds to the pods. */}}
{{- define "tidegate.pod.extraContainers" -}}
{{- with .values.extraContainers }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "tidegate.pod.initContainers" -}}
{{- with .values.initContainers }}
initContainers:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The class of a component's pods: its own, else that of the platform where those are in use. */}}
{{- define "tidegate.priorityClassName" -}}
{{- $classes := .root.Values.priorityClasses -}}
{{- $platform := ternary "ingest" "platform-core" (has .component (list "gateway" "writer")) -}}
{{- .values.priorityClassName | default (ternary $platform "" (or $classes.create $classes.use)) -}}
{{- end -}}

{{/* The probes of our own services: 30 seconds to start, out of the load balancing after 4. The argument
     is the path that says whether a pod is ready. */}}
{{- define "tidegate.container.probes" -}}
startupProbe:
  httpGet: {path: /livez, port: admin}
  periodSeconds: 1
  failureThreshold: 30
readinessProbe:
  httpGet: {path: {{ . }}, port: admin}
  periodSeconds: 2
  failureThreshold: 2
livenessProbe:
  httpGet: {path: /livez, port: admin}
  periodSeconds: 10
  timeoutSeconds: 2
  failureThreshold: 3
{{- end -}}

{{/* A component's variables of the user's, and where AWS is to one that has a role. Arguments: root, key. */}}
{{- define "tidegate.userEnv" -}}
{{- $env := dict -}}
{{- $aws := .root.Values.aws -}}
{{- if and $aws.enabled (hasKey $aws.roles .key) -}}
{{- $env = dict "AWS_REGION" $aws.region "AWS_STS_REGIONAL_ENDPOINTS" "regional" -}}
{{- end -}}
{{- mergeOverwrite $env (deepCopy (index .root.Values .key).env) | toJson -}}
{{- end -}}

{{/* A dict of names and values as environment variables. A value is text, a number or {valueFrom: ...}. */}}
{{- define "tidegate.container.env" -}}
{{- range $name, $value := . }}
- name: {{ $name }}
  {{- if kindIs "map" $value }}
  {{- toYaml $value | nindent 2 }}
  {{- else }}
  value: {{ include "tidegate.number" $value | quote }}
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
