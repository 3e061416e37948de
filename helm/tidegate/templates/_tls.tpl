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
{{- $client := include "tidegate.tls.name" (dict "root" . "key" "envoy") -}}
{{- if .Values.tls.spire.enabled -}}
{{- dict "workload_api" (include "tidegate.spire.socket" .) "client_san" $client | toJson -}}
{{- else -}}
{{- dict "certificate_file" "/etc/tidegate/tls/tls.crt" "key_file" "/etc/tidegate/tls/tls.key"
  "client_ca_file" "/etc/tidegate/tls/ca.crt" "client_san" $client | toJson -}}
{{- end -}}
{{- end -}}

{{/* Where SPIRE's agent is asked. */}}
{{- define "tidegate.spire.socket" -}}
unix:///spiffe-workload-api/{{ .Values.tls.spire.socket }}
{{- end -}}

{{/* "true" where the services ask the agent as clients of something. Arguments: root, of. */}}
{{- define "tidegate.spire.client" -}}
{{- $tls := .root.Values.tls -}}
{{- if and $tls.enabled $tls.spire.enabled (has .of $tls.spire.clients) -}}true{{- end -}}
{{- end -}}

{{/* A client's section of TLS, as JSON: what values say, and the agent in place of certificate and key. Arguments: root, of, section (of values), where. */}}
{{- define "tidegate.spire.section" -}}
{{- $section := .section | default dict -}}
{{- if include "tidegate.spire.client" . -}}
{{- if or $section.certificate_file $section.key_file -}}
{{- fail (printf "tls.spire.clients has %s, whose certificate %s names too" .of .where) -}}
{{- end -}}
{{- $section = mergeOverwrite (dict "workload_api" (include "tidegate.spire.socket" .root)) (deepCopy $section) -}}
{{- end -}}
{{- toJson $section -}}
{{- end -}}

{{/* "true" where a component has a certificate. Arguments: root, key. */}}
{{- define "tidegate.tls.has" -}}
{{- $has := ne .key "writer" -}}
{{- range $of := list "kafka" "database" "collector" -}}
{{- if include "tidegate.spire.client" (dict "root" $.root "of" $of) -}}{{- $has = true -}}{{- end -}}
{{- end -}}
{{- if and .root.Values.tls.enabled $has -}}true{{- end -}}
{{- end -}}

{{- define "tidegate.tls.mount" -}}
{{- if include "tidegate.tls.has" . }}
{{- if .root.Values.tls.spire.enabled }}
- {name: spiffe, mountPath: /spiffe-workload-api, readOnly: true}
{{- else }}
- {name: tls, mountPath: /etc/tidegate/tls, readOnly: true}
{{- end }}
{{- end }}
{{- end -}}

{{- define "tidegate.tls.volume" -}}
{{- if include "tidegate.tls.has" . }}
{{- if .root.Values.tls.spire.enabled }}
- name: spiffe
  csi: {driver: csi.spiffe.io, readOnly: true}
{{- else }}
- name: tls
  secret: {secretName: {{ include "tidegate.tls.secret" . }}, defaultMode: 0440}
{{- end }}
{{- end }}
{{- end -}}

{{/* "true" where the files of the collector's Secret are mounted. */}}
{{- define "tidegate.otlp.files" -}}
{{- if and .Values.otel.host .Values.otel.tls.enabled .Values.otel.tls.existingSecret -}}true{{- end -}}
{{- end -}}

{{- define "tidegate.otlp.mount" -}}
{{- if include "tidegate.otlp.files" . }}
- {name: otlp-tls, mountPath: /etc/tidegate/otlp-tls, readOnly: true}
{{- end }}
{{- end -}}

{{- define "tidegate.otlp.volume" -}}
{{- if include "tidegate.otlp.files" . }}
- name: otlp-tls
  secret: {secretName: {{ .Values.otel.tls.existingSecret }}, defaultMode: 0440}
{{- end }}
{{- end -}}

{{/* A service's section of TLS to the collector, as JSON; nothing in it where the system's authorities count. */}}
{{- define "tidegate.otlp.section" -}}
{{- $section := dict -}}
{{- if include "tidegate.otlp.files" . -}}
{{- $_ := set $section "ca_file" "/etc/tidegate/otlp-tls/ca.crt" -}}
{{- if .Values.otel.tls.clientCertificate -}}
{{- $_ := mergeOverwrite $section (dict "certificate_file" "/etc/tidegate/otlp-tls/tls.crt" "key_file" "/etc/tidegate/otlp-tls/tls.key") -}}
{{- end -}}
{{- end -}}
{{- include "tidegate.spire.section" (dict "root" . "of" "collector" "section" $section "where" "otel.tls") -}}
{{- end -}}

{{/* Envoy's bootstrap with SPIRE's agent in place of the files of certificates. Arguments: root, text. */}}
{{- define "tidegate.spire.bootstrap" -}}
{{- $agent := "{resource_api_version: V3, api_config_source: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: spire_agent}}]}}" -}}
{{- $text := .text -}}
{{- $secrets := dict "upstream_certificate" "default" "upstream_authorities" "ROOTCA" -}}
{{- if include "tidegate.spire.client" (dict "root" .root "of" "collector") -}}
{{- $_ := set $secrets "otlp_certificate" "default" -}}
{{- if not .root.Values.otel.tls.existingSecret -}}{{- $_ := set $secrets "otlp_authorities" "ROOTCA" -}}{{- end -}}
{{- end -}}
{{- range $secret, $name := $secrets -}}
{{- $text = regexReplaceAll (printf "\\{name: %s, sds_config: \\{[^}]*\\}\\}\\}" $secret) $text (printf "{name: %s, sds_config: %s}" $name $agent) -}}
{{- end -}}
{{- if contains "/upstream-" $text -}}{{- fail "files/envoy.yaml asks for certificates in a way that SPIRE's agent is not put in place of" -}}{{- end -}}
{{ $text | trimSuffix "\n" }}
    - name: spire_agent
      connect_timeout: 1s
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config:
            http2_protocol_options: {}
      load_assignment:
        cluster_name: spire_agent
        endpoints:
          - lb_endpoints:
              - endpoint: {address: {pipe: {path: "/spiffe-workload-api/{{ .root.Values.tls.spire.socket }}"}}}
{{ end -}}

{{/* The files by which Envoy finds its certificates and follows them. */}}
{{- define "tidegate.tls.sds" -}}
{{- $type := "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret" -}}
{{- $pair := dict "upstream" "tls" "edge" "edge-tls" "otlp" "otlp-tls" -}}
{{- $files := and .Values.tls.enabled (not .Values.tls.spire.enabled) -}}
{{- $otlp := and .Values.otel.host .Values.otel.tls.enabled -}}
{{- $on := dict "upstream" $files "edge" .Values.tls.edge.enabled "otlp" (and $otlp .Values.otel.tls.clientCertificate) -}}
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
{{- if $files }}
upstream-authorities.yaml: |
  resources:
    - "@type": {{ $type }}
      name: upstream_authorities
      validation_context:
        trusted_ca: {filename: /etc/tidegate/tls/ca.crt}
        watched_directory: {path: /etc/tidegate/tls}
{{- end }}
{{- if and $otlp (or .Values.otel.tls.existingSecret (not (include "tidegate.spire.client" (dict "root" . "of" "collector")))) }}
{{- $authorities := ternary "/etc/tidegate/otlp-tls/ca.crt" "/etc/ssl/certs/ca-certificates.crt" (ne .Values.otel.tls.existingSecret "") }}
otlp-authorities.yaml: |
  resources:
    - "@type": {{ $type }}
      name: otlp_authorities
      validation_context:
        trusted_ca: {filename: {{ $authorities }}}
        watched_directory: {path: {{ dir $authorities }}}
{{- end }}
{{- end -}}
