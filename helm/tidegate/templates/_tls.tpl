{{/* Certificates between Envoy and the services. Arguments where not the root: root, key (of the component in values). */}}

{{/* The name that a component's certificate bears: that of its ServiceAccount, as SPIFFE has it. */}}
{{- define "tidegate.tls.name" -}}
{{- $component := get (include "tidegate.components" .root | fromYaml) .key -}}
{{- $account := include "tidegate.serviceAccountName" (dict "root" .root "component" $component "values" (index .root.Values .key)) -}}
{{- printf "spiffe://%s/ns/%s/sa/%s" .root.Values.tls.trustDomain (include "tidegate.namespace" .root) $account -}}
{{- end -}}

{{- define "tidegate.tls.secret" -}}
{{- $component := get (include "tidegate.components" .root | fromYaml) .key -}}
{{- get .root.Values.tls.secrets .key | default (printf "%s-tls" (include "tidegate.component.name" (dict "root" .root "component" $component))) -}}
{{- end -}}

{{/* What Envoy wants of a service's certificate. */}}
{{- define "tidegate.tls.sans" -}}
[{san_type: URI, matcher: {exact: {{ include "tidegate.tls.name" . | quote }}}}]
{{- end -}}

{{/* A service's section of TLS: its own certificate, and Envoy's as the only client's. The argument is the root. */}}
{{- define "tidegate.tls.section" -}}
{{- dict "certificate_file" "/etc/tidegate/tls/tls.crt" "key_file" "/etc/tidegate/tls/tls.key"
  "client_ca_file" "/etc/tidegate/tls/ca.crt" "client_san" (include "tidegate.tls.name" (dict "root" . "key" "envoy")) | toJson -}}
{{- end -}}

{{- define "tidegate.tls.mount" -}}
{{- if and .root.Values.tls.enabled (ne .key "writer") }}
- {name: tls, mountPath: /etc/tidegate/tls, readOnly: true}
{{- end }}
{{- end -}}

{{- define "tidegate.tls.volume" -}}
{{- if and .root.Values.tls.enabled (ne .key "writer") }}
- name: tls
  secret: {secretName: {{ include "tidegate.tls.secret" . }}, defaultMode: 0440}
{{- end }}
{{- end -}}

{{/* The files by which Envoy finds its certificates and follows them. */}}
{{- define "tidegate.tls.sds" -}}
{{- $type := "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret" -}}
{{- $pair := dict "upstream" "tls" "edge" "edge-tls" -}}
{{- $on := dict "upstream" .Values.tls.enabled "edge" .Values.tls.edge.enabled -}}
{{- range $use, $directory := $pair }}
{{- if index $on $use }}
{{ $use }}-certificate.yaml: |
  resources:
    - "@type": {{ $type }}
      name: {{ $use }}_certificate
      tls_certificate:
        certificate_chain: {filename: /etc/tidegate/{{ $directory }}/tls.crt}
        private_key: {filename: /etc/tidegate/{{ $directory }}/tls.key}
        watched_directory: {path: /etc/tidegate/{{ $directory }}}
{{- end }}
{{- end }}
{{- if .Values.tls.enabled }}
upstream-authorities.yaml: |
  resources:
    - "@type": {{ $type }}
      name: upstream_authorities
      validation_context:
        trusted_ca: {filename: /etc/tidegate/tls/ca.crt}
        watched_directory: {path: /etc/tidegate/tls}
{{- end }}
{{- end -}}
