{{/* Names and labels. A component's argument is a dict: root ($), component (its name in Kubernetes). */}}

{{- define "tidegate.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Leaves room in 63 characters for the longest component name. */}}
{{- define "tidegate.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 46 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "tidegate.name" . -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 46 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "tidegate.namespace" -}}
{{- .Values.namespaceOverride | default .Release.Namespace -}}
{{- end -}}

{{/* The metadata of an object. Arguments: root, name; where it is a component's: component; labels and
     annotations of its own (dicts); cluster (true where it stands in no namespace). */}}
{{- define "tidegate.metadata" -}}
name: {{ .name }}
{{- if not .cluster }}
namespace: {{ include "tidegate.namespace" .root }}
{{- end }}
labels:
  {{- if .component }}
  {{- include "tidegate.component.selector" . | nindent 2 }}
  {{- else }}
  app.kubernetes.io/name: {{ include "tidegate.name" .root }}
  app.kubernetes.io/instance: {{ .root.Release.Name }}
  {{- end }}
  {{- include "tidegate.labels" .root | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with mergeOverwrite (deepCopy .root.Values.commonAnnotations) (default dict .annotations) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The same for the object that bears a component's name. Arguments: root, component, annotations. */}}
{{- define "tidegate.component.metadata" -}}
{{- include "tidegate.metadata" (merge (dict "name" (include "tidegate.component.name" .)) .) -}}
{{- end -}}

{{- define "tidegate.component.name" -}}
{{- printf "%s-%s" (include "tidegate.fullname" .root) .component -}}
{{- end -}}

{{/* The DNS name of a component's Service, complete, so that a search list costs no query. */}}
{{- define "tidegate.component.host" -}}
{{- printf "%s.%s.svc.%s" (include "tidegate.component.name" .) (include "tidegate.namespace" .root) .root.Values.clusterDomain -}}
{{- end -}}

{{- define "tidegate.component.selector" -}}
app.kubernetes.io/name: {{ include "tidegate.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "tidegate.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "tidegate.lastingLabels" . }}
{{- end -}}

{{/* Those that a new version of the chart alone does not change: pods with them stay. */}}
{{- define "tidegate.lastingLabels" -}}
app.kubernetes.io/part-of: tidegate
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "tidegate.serviceAccountName" -}}
{{- .values.serviceAccount.name | default (ternary (include "tidegate.component.name" .) "default" .values.serviceAccount.create) -}}
{{- end -}}

{{/* With IRSA, a component's role is an annotation of its ServiceAccount. Arguments: root, key. */}}
{{- define "tidegate.serviceAccount.annotations" -}}
{{- $annotations := dict -}}
{{- $aws := .root.Values.aws -}}
{{- if and $aws.enabled (eq $aws.identity "irsa") -}}
{{- with index $aws.roles .key -}}{{- $_ := set $annotations "eks.amazonaws.com/role-arn" . -}}{{- end -}}
{{- end -}}
{{- mergeOverwrite $annotations (deepCopy (index .root.Values .key).serviceAccount.annotations) | toJson -}}
{{- end -}}

{{/* registry/repository:tag, or registry/repository@digest: a digest wins over a tag. Argument: root, image, tag. */}}
{{- define "tidegate.image" -}}
{{- $registry := .root.Values.global.imageRegistry | default .image.registry -}}
{{- $name := ternary (printf "%s/%s" $registry .image.repository) .image.repository (ne $registry "") -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $name .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name .tag -}}
{{- end -}}
{{- end -}}

{{/* The five components: the key in values, and the name in Kubernetes. */}}
{{- define "tidegate.components" -}}
envoy: envoy
extAuthz: ext-authz
ratelimit: ratelimit-svc
gateway: gateway
writer: writer
{{- end -}}

{{/* Our own image. */}}
{{- define "tidegate.ourImage" -}}
{{- include "tidegate.image" (dict "root" . "image" .Values.image "tag" (.Values.image.tag | default .Chart.AppVersion)) -}}
{{- end -}}

{{/* address:port to listen on, IPv6 in brackets. Argument: root, port. */}}
{{- define "tidegate.listen" -}}
{{- $address := .root.Values.bindAddress -}}
{{- printf "%s:%d" (ternary (printf "[%s]" $address) $address (contains ":" $address)) (int64 .port) -}}
{{- end -}}

{{/* Where our services send spans; empty when nowhere. */}}
{{- define "tidegate.otlpEndpoint" -}}
{{- with .Values.otel -}}
{{- if .host -}}{{- printf "%s://%s:%d" (ternary "https" "http" .tls.enabled) .host (int64 .port) -}}{{- end -}}
{{- end -}}
{{- end -}}
