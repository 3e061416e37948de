{{/* The files that the services start with. */}}

{{/* Envoy's bootstrap: the placeholders of files/envoy.yaml filled in. Optional sections that are not
     wanted go first, then comment lines, in which `${NAME}` speaks of placeholders; what is left
     afterwards has no value here. */}}
{{- define "tidegate.envoy.bootstrap" -}}
{{- $ports := include "tidegate.ports" . | fromYaml -}}
{{- $envoy := .Values.envoy -}}
{{- $text := .Files.Get "files/envoy.yaml" -}}
{{- if not $text -}}{{- fail "files/envoy.yaml is missing from the chart" -}}{{- end -}}
{{- $cut := list "injected-pressure" -}}
{{- if not .Values.tls.edge.enabled -}}{{- $cut = append $cut "edge-tls" -}}{{- end -}}
{{- if not .Values.tls.enabled -}}{{- $cut = append $cut "upstream-tls" -}}{{- end -}}
{{- if not .Values.otel.host -}}{{- $cut = append $cut "trace" -}}{{- end -}}
{{- if not .Values.otel.tls.enabled -}}{{- $cut = append $cut "otlp-tls" -}}{{- end -}}
{{- if not (or .Values.otel.tls.clientCertificate (include "tidegate.spire.client" (dict "root" . "of" "collector"))) -}}{{- $cut = append $cut "otlp-identity" -}}{{- end -}}
{{- range $section := list "bytes" "points" -}}
{{- if not (include "tidegate.charges" (dict "root" $ "key" (printf "tenant_%s" $section))) -}}{{- $cut = append $cut $section -}}{{- end -}}
{{- end -}}
{{- $origins := include "tidegate.envoy.origins" . -}}
{{- if not $origins -}}{{- $cut = append $cut "cors" -}}{{- end -}}
{{- if not $envoy.breakGlass.enabled -}}{{- $cut = append $cut "break-glass" -}}{{- end -}}
{{- range $section := $cut -}}
{{- $text = regexReplaceAll (printf "(?ms)^ *# begin %s$.*?^ *# end %s\n" $section $section) $text "" -}}
{{- end -}}
{{- $text = regexReplaceAll "(?m)^[ \\t]*#.*\\n" $text "" -}}
{{- $otel := .Values.otel.host -}}
{{- $values := dict
  "ADMIN_PORT" $ports.envoy.loopbackAdmin
  "STATUS_ADDRESS" .Values.bindAddress
  "STATUS_PORT" $ports.envoy.status
  "VERSION" .Chart.AppVersion
  "ACCESS_LOG_SUCCESS_PERCENT" $envoy.accessLogSuccessPercent
  "EDGE_ADDRESS" .Values.bindAddress
  "EDGE_PORT" $ports.envoy.edge
  "CONNECTIONS_MAX" $envoy.connectionsMax
  "HEAP_BYTES_MAX" (include "tidegate.envoy.heap" $envoy)
  "XFF_TRUSTED_HOPS" $envoy.xffTrustedHops
  "PER_ADDRESS_BURST" $envoy.perAddress.burst
  "PER_ADDRESS_PER_SECOND" $envoy.perAddress.perSecond
  "GATEWAY_REQUESTS_MAX" $envoy.gatewayRequestsMax
  "RATELIMIT_DENY_PERCENT" $envoy.ratelimitOutage.denyPercent
  "BYPASS_CLASSES" (include "tidegate.classesWith" (dict "root" . "outage" "bypass"))
  "DENY_CLASSES" (include "tidegate.classesWith" (dict "root" . "outage" "deny"))
  "LOCAL_LIMIT_BURST" $envoy.ratelimitOutage.burst
  "LOCAL_LIMIT_PER_SECOND" $envoy.ratelimitOutage.perSecond
  "CORS_ORIGINS" $origins
  "BREAK_GLASS_ADDRESS" .Values.bindAddress
  "BREAK_GLASS_PORT" $ports.envoy.breakGlass
  "BREAK_GLASS_CONNECTIONS_MAX" $envoy.breakGlass.connectionsMax
  "BREAK_GLASS_CERT" "/etc/tidegate/break-glass/tls.crt"
  "BREAK_GLASS_KEY" "/etc/tidegate/break-glass/tls.key"
  "BREAK_GLASS_CA" "/etc/tidegate/break-glass/ca.crt"
  "AUTHZ_ENDPOINTS" (include "tidegate.envoy.endpoints" (dict "root" . "component" "ext-authz" "port" $ports.extAuthz.grpc))
  "RATELIMIT_ENDPOINTS" (include "tidegate.envoy.endpoints" (dict "root" . "component" "ratelimit-svc" "port" $ports.ratelimit.grpc))
  "GATEWAY_ENDPOINTS" (include "tidegate.envoy.endpoints" (dict "root" . "component" "gateway" "port" $ports.gateway.http))
  "EDGE_TLS_ADDRESS" .Values.bindAddress
  "EDGE_TLS_PORT" $ports.envoy.edgeTls
  "SDS_DIRECTORY" "/etc/tidegate/envoy"
  "AUTHZ_SANS" (include "tidegate.tls.sans" (dict "root" . "key" "extAuthz"))
  "RATELIMIT_SANS" (include "tidegate.tls.sans" (dict "root" . "key" "ratelimit"))
  "GATEWAY_SANS" (include "tidegate.tls.sans" (dict "root" . "key" "gateway"))
  "OTLP_HOST" $otel
  "OTLP_PORT" .Values.otel.port
  "OTLP_SANS" (printf "[{san_type: DNS, matcher: {exact: %q}}]" $otel)
-}}
{{- range $name, $value := $values -}}
{{- /* Numbers of values are floats: without %d a large one would come out as 8e+08. */ -}}
{{- $shown := ternary (toString $value) (printf "%d" (int64 $value)) (kindIs "string" $value) -}}
{{- $text = replace (printf "${%s}" $name) $shown $text -}}
{{- end -}}
{{- $text = replace "${TRACE_SAMPLING_PERCENT}" (ternary (toString .Values.otel.samplingPercent) "0" (ne $otel "")) $text -}}
{{- $text = replace "${AUTHZ_TIMEOUT}" $envoy.timeouts.extAuthz $text -}}
{{- $text = replace "${RATELIMIT_TIMEOUT}" $envoy.timeouts.ratelimit $text -}}
{{- $text = replace "${AUTHZ_TRY_TIMEOUT}" (include "tidegate.ofOneTry" $envoy.timeouts.extAuthz) $text -}}
{{- $text = replace "${RATELIMIT_TRY_TIMEOUT}" (include "tidegate.ofOneTry" $envoy.timeouts.ratelimit) $text -}}
{{- if and .Values.tls.enabled .Values.tls.spire.enabled -}}
{{- $text = include "tidegate.spire.bootstrap" (dict "root" . "text" $text) -}}
{{- end -}}
{{- with regexFind "\\$\\{[^}\\n]*\\}?" $text -}}
{{- fail (printf "files/envoy.yaml has the placeholder %s, for which this chart has no value" .) -}}
{{- end -}}
{{- $text -}}
{{- end -}}

{{/* The gateway's cors_origins as alternatives of a regular expression; nothing where there are none. */}}
{{- define "tidegate.envoy.origins" -}}
{{- $patterns := list -}}
{{- range .Values.gateway.config.cors_origins -}}
{{- $plain := regexReplaceAll "[.\\[\\]]" . "\\$0" -}}
{{- $patterns = append $patterns (eq . "*" | ternary ".*" (replace "://*\\." "://[^/:@]+\\." $plain)) -}}
{{- end -}}
{{- join "|" $patterns -}}
{{- end -}}

{{/* "true" where a quota may limit a key of the edge's descriptors: a file of the chart names the key, or has
     a pattern, or the quotas are elsewhere (another ConfigMap, a control plane) and so not known here. */}}
{{- define "tidegate.charges" -}}
{{- $known := list -}}
{{- range $file, $text := .root.Values.ratelimit.quotas -}}
{{- if $text -}}{{- $known = append $known $text -}}{{- end -}}
{{- end -}}
{{- $found := or (empty $known) (not (empty .root.Values.ratelimit.existingQuotasConfigMaps)) -}}
{{- range $text := $known -}}
{{- if or (contains $.key $text) (regexMatch "key:[^\n]*\\*" $text) -}}{{- $found = true -}}{{- end -}}
{{- end -}}
{{- if $found -}}true{{- end -}}
{{- end -}}

{{/* What one of two tries may take of a timeout such as `0.25s`, with room for what lies between them. */}}
{{- define "tidegate.ofOneTry" -}}
{{- printf "%.3fs" (mulf (trimSuffix "s" . | float64) 0.4) -}}
{{- end -}}

{{/* The endpoints of a cluster of Envoy: the headless Service, whose name is resolved to every pod. */}}
{{- define "tidegate.envoy.endpoints" -}}
[{endpoint: {address: {socket_address: {address: {{ include "tidegate.component.host" . | quote }}, port_value: {{ .port }}}}}}]
{{- end -}}

{{/* The outage policy of every priority class, by name, as YAML: what the quota files say, what
     outageByClass says where they are elsewhere, or the classes that ship. */}}
{{- define "tidegate.outageByClass" -}}
{{- $given := .Values.ratelimit.outageByClass -}}
{{- $shipped := dict "system-node-critical" "bypass" "platform-core" "local" "ingest" "local" "background" "deny" -}}
{{- $read := dict -}}
{{- $owner := "" -}}
{{- $files := ternary .Values.ratelimit.quotas dict (empty .Values.ratelimit.existingQuotasConfigMaps) -}}
{{- range $file, $text := $files -}}
{{- $quotas := fromYaml $text -}}
{{- with $quotas.Error -}}{{- fail (printf "ratelimit.quotas.%s is not YAML: %s" $file .) -}}{{- end -}}
{{- if hasKey $quotas "priority_classes" -}}
{{- $classes := dict -}}
{{- if not (kindIs "map" $quotas.priority_classes) -}}
{{- fail (printf "ratelimit.quotas.%s: priority_classes must be a map of classes" $file) -}}
{{- end -}}
{{- range $name, $class := $quotas.priority_classes -}}
{{- /* What Envoy gets is a regular expression: no name may match more than itself. */ -}}
{{- if not (regexMatch "\\A[a-z0-9]([-_a-z0-9]{0,61}[a-z0-9])?\\z" $name) -}}
{{- fail (printf "ratelimit.quotas.%s: priority class %q must be 1 to 63 lower-case letters, digits, '-' or '_', beginning and ending with a letter or digit: keys and Envoy know no others" $file $name) -}}
{{- end -}}
{{- if not (kindIs "map" $class) -}}
{{- fail (printf "ratelimit.quotas.%s: priority class '%s' must be a map" $file $name) -}}
{{- end -}}
{{- $outage := ternary $class.outage "local" (hasKey $class "outage") -}}
{{- if not (has $outage (list "bypass" "local" "deny")) -}}
{{- fail (printf "ratelimit.quotas.%s: outage of priority class '%s' must be bypass, local or deny" $file $name) -}}
{{- end -}}
{{- $_ := set $classes $name $outage -}}
{{- end -}}
{{- if and $owner (ne (toJson $classes) (toJson $read)) -}}
{{- fail (printf "ratelimit.quotas.%s: priority_classes differ from those in %s" $file $owner) -}}
{{- end -}}
{{- $read = $classes -}}
{{- $owner = $file -}}
{{- end -}}
{{- end -}}
{{- if and $given $files -}}
{{- $inForce := ternary $read $shipped (ne $owner "") -}}
{{- if ne (toJson $given) (toJson $inForce) -}}
{{- fail (printf "ratelimit.outageByClass says %s, but ratelimit.quotas say %s: leave it empty, as the chart reads those" (toJson $given) (toJson $inForce)) -}}
{{- end -}}
{{- end -}}
{{- toYaml (coalesce $given $read $shipped) -}}
{{- end -}}

{{/* The classes of one outage policy, as a regular expression for Envoy. `-` is the name of none. */}}
{{- define "tidegate.classesWith" -}}
{{- $names := list -}}
{{- range $name, $outage := include "tidegate.outageByClass" .root | fromYaml -}}
{{- if eq $outage $.outage -}}{{- $names = append $names $name -}}{{- end -}}
{{- end -}}
{{- $names | join "|" | default "-" -}}
{{- end -}}

{{- define "tidegate.extAuthz.config" -}}
{{- $ports := (include "tidegate.ports" . | fromYaml).extAuthz -}}
{{- $authz := .Values.extAuthz -}}
{{- $peppers := dict -}}
{{- range $version, $key := $authz.pepperSecret.versions -}}
{{- $_ := set $peppers $version (printf "/etc/tidegate/pepper/%s" $key) -}}
{{- end -}}
{{- $classes := include "tidegate.outageByClass" . | fromYaml -}}
{{- range $class := $authz.config.priority_classes -}}
{{- if not (hasKey $classes (toString $class)) -}}
{{- fail (printf "extAuthz.config.priority_classes has '%s', which is no class of ratelimit.quotas or ratelimit.outageByClass" (toString $class)) -}}
{{- end -}}
{{- end -}}
{{- $config := dict
  "grpc_listen" (include "tidegate.listen" (dict "root" . "port" $ports.grpc))
  "admin_listen" (include "tidegate.listen" (dict "root" . "port" $ports.admin))
  "keys_file" "/etc/tidegate/keys"
  "worker_threads" (include "tidegate.cores" $authz.resources.limits.cpu | int64)
  "drain_delay" (printf "%ds" (int64 $authz.drain.delaySeconds))
  "drain_timeout" (printf "%ds" (int64 $authz.drain.timeoutSeconds))
  "log_level" $authz.logLevel
  "priority_classes" (keys $classes | sortAlpha)
-}}
{{- with include "tidegate.otlpEndpoint" . -}}{{- $_ := set $config "otlp_endpoint" . -}}{{- end -}}
{{- with include "tidegate.otlp.section" . | fromJson -}}{{- $_ := set $config "otlp_tls" . -}}{{- end -}}
{{- if .Values.tls.enabled -}}{{- $_ := set $config "grpc_tls" (include "tidegate.tls.section" . | fromJson) -}}{{- end -}}
{{- $config = mergeOverwrite $config (deepCopy $authz.config) -}}
{{- with $config.redis -}}
{{- with include "tidegate.spire.section" (dict "root" $ "of" "redis" "section" .tls "where" "extAuthz.config.redis.tls") | fromJson -}}{{- $_ := set $config.redis "tls" . -}}{{- end -}}
{{- end -}}
{{- toYaml $config }}
{{- if not (hasKey $authz.config "pepper_files") }}
pepper_files:
  {{- /* Versions are numbers; a map of Helm's would quote them. */}}
  {{- range $version, $file := $peppers }}
  {{ $version }}: {{ $file }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* "true" where the database wants a password or token from a mount. */}}
{{- define "tidegate.sinkAuth" -}}
{{- $stored := include "tidegate.stored" (dict "root" . "use" "sink") | fromJsonArray -}}
{{- if and (or .Values.writer.sink.auth.existingSecret $stored) (ne .Values.writer.sink.kind "file") -}}true{{- end -}}
{{- end -}}

{{- define "tidegate.ingest.config" -}}
{{- $ports := include "tidegate.ports" . | fromYaml -}}
{{- $gateway := mergeOverwrite (include "tidegate.gateway.budget" . | fromJson) (dict
  "listen" (include "tidegate.listen" (dict "root" . "port" $ports.gateway.http))
  "admin_listen" (include "tidegate.listen" (dict "root" . "port" $ports.gateway.admin)))
-}}
{{- if include "tidegate.rules" . | fromJsonArray -}}{{- $_ := set $gateway "rules_directory" "/etc/tidegate/rules" -}}{{- end -}}
{{- if .Values.tls.enabled -}}{{- $_ := set $gateway "tls" (include "tidegate.tls.section" . | fromJson) -}}{{- end -}}
{{- $sink := .Values.writer.sink -}}
{{- $target := deepCopy (index $sink $sink.kind) -}}
{{- if include "tidegate.sinkAuth" . -}}
{{- $_ := set $target (ternary "password_file" "token_file" (eq $sink.kind "influxdb_v1")) (printf "/etc/tidegate/sink/%s" $sink.auth.key) -}}
{{- end -}}
{{- if ne $sink.kind "file" -}}
{{- $where := printf "writer.sink.%s.tls" $sink.kind -}}
{{- with include "tidegate.spire.section" (dict "root" . "of" "database" "section" $target.tls "where" $where) | fromJson -}}{{- $_ := set $target "tls" . -}}{{- end -}}
{{- end -}}
{{- $writer := mergeOverwrite (include "tidegate.writer.budget" . | fromJson) (dict
  "admin_listen" (include "tidegate.listen" (dict "root" . "port" $ports.writer.admin))
  $sink.kind $target)
-}}
{{- $config := dict
  "journal" (dict .Values.ingest.journal.kind (include "tidegate.ingest.journal" . | fromJson))
  "destinations" .Values.ingest.destinations
  "gateway" (mergeOverwrite $gateway (deepCopy .Values.gateway.config))
  "writer" (mergeOverwrite $writer (deepCopy .Values.writer.config))
  "log_level" .Values.ingest.logLevel
  "drain_delay" (printf "%ds" (int64 .Values.ingest.drain.delaySeconds))
  "drain_timeout" (printf "%ds" (int64 .Values.ingest.drain.timeoutSeconds))
-}}
{{- with include "tidegate.otlpEndpoint" . -}}{{- $_ := set $config "otlp_endpoint" . -}}{{- end -}}
{{- with include "tidegate.otlp.section" . | fromJson -}}{{- $_ := set $config "otlp_tls" . -}}{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{/* The ConfigMaps with rules of tenants, as JSON. */}}
{{- define "tidegate.rules" -}}
{{- $own := ternary (list (printf "%s-rules" (include "tidegate.fullname" .))) list (not (empty .Values.gateway.rules)) -}}
{{- .Values.gateway.existingRulesConfigMaps | default $own | toJson -}}
{{- end -}}
