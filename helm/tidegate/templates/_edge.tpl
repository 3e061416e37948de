{{/* What stands in front of Envoy, and the rules between its settings. */}}

{{/* Annotations of an ALB's Ingress. Arguments: root, scheme, certificateArn, subnets, inboundCidrs. */}}
{{- define "tidegate.alb.annotations" -}}
{{- $alb := .root.Values.ingress.alb -}}
{{- $prefix := "alb.ingress.kubernetes.io/" -}}
{{- $attributes := list (printf "idle_timeout.timeout_seconds=%d" (int64 $alb.idleTimeoutSeconds))
  (printf "deletion_protection.enabled=%v" $alb.deletionProtection) "routing.http.drop_invalid_header_fields.enabled=true" -}}
{{- with $alb.accessLogsBucket -}}
{{- $attributes = concat $attributes (list "access_logs.s3.enabled=true" (printf "access_logs.s3.bucket=%s" .)) -}}
{{- end -}}
{{- $annotations := dict
  (printf "%sscheme" $prefix) .scheme
  (printf "%starget-type" $prefix) "ip"
  (printf "%slisten-ports" $prefix) "[{\"HTTPS\":443}]"
  (printf "%scertificate-arn" $prefix) .certificateArn
  (printf "%sssl-policy" $prefix) $alb.sslPolicy
  (printf "%shealthcheck-path" $prefix) "/healthz"
  (printf "%shealthcheck-interval-seconds" $prefix) (printf "%d" (int64 $alb.healthCheckIntervalSeconds))
  (printf "%shealthcheck-timeout-seconds" $prefix) "2"
  (printf "%shealthy-threshold-count" $prefix) "2"
  (printf "%sunhealthy-threshold-count" $prefix) "2"
  (printf "%starget-group-attributes" $prefix) (printf "deregistration_delay.timeout_seconds=%d" (int64 $alb.deregistrationDelaySeconds))
  (printf "%sload-balancer-attributes" $prefix) (join "," $attributes) -}}
{{- if .root.Values.tls.edge.enabled -}}{{- $_ := set $annotations (printf "%sbackend-protocol" $prefix) "HTTPS" -}}{{- end -}}
{{- with .subnets -}}{{- $_ := set $annotations (printf "%ssubnets" $prefix) (join "," .) -}}{{- end -}}
{{- with .inboundCidrs -}}{{- $_ := set $annotations (printf "%sinbound-cidrs" $prefix) (join "," .) -}}{{- end -}}
{{- with $alb.securityGroups -}}{{- $_ := set $annotations (printf "%ssecurity-groups" $prefix) (join "," .) -}}{{- end -}}
{{- with $alb.wafAclArn -}}{{- $_ := set $annotations (printf "%swafv2-acl-arn" $prefix) . -}}{{- end -}}
{{- with include "tidegate.aws.tags" .root -}}{{- $_ := set $annotations (printf "%stags" $prefix) . -}}{{- end -}}
{{- $annotations | toJson -}}
{{- end -}}

{{/* Tags as "key=value,key=value". */}}
{{- define "tidegate.aws.tags" -}}
{{- $tags := list -}}
{{- range $key, $value := .Values.aws.tags -}}{{- $tags = append $tags (printf "%s=%s" $key $value) -}}{{- end -}}
{{- join "," $tags -}}
{{- end -}}

{{/* The paths of an Ingress or a Gateway's route that are gRPC: services of OTLP. */}}
{{- define "tidegate.grpcServices" -}}
- opentelemetry.proto.collector.logs.v1.LogsService
- opentelemetry.proto.collector.metrics.v1.MetricsService
- opentelemetry.proto.collector.trace.v1.TraceService
{{- end -}}

{{/* "true" where gRPC has a Service of its own. */}}
{{- define "tidegate.grpcService" -}}
{{- if or (and .Values.ingress.enabled .Values.ingress.grpc.enabled) .Values.gatewayApi.enabled -}}true{{- end -}}
{{- end -}}

{{/* The spec of an Ingress. Arguments: root, host. */}}
{{- define "tidegate.ingress.spec" -}}
{{- $envoy := include "tidegate.component.name" (dict "root" .root "component" "envoy") -}}
ingressClassName: {{ .root.Values.ingress.className }}
{{- with .root.Values.ingress.tlsSecret }}
tls:
  - hosts: [{{ $.host }}]
    secretName: {{ . }}
{{- end }}
rules:
  - host: {{ .host }}
    http:
      paths:
        {{- if .root.Values.ingress.grpc.enabled }}
        {{- range include "tidegate.grpcServices" . | fromYamlArray }}
        - path: /{{ . }}
          pathType: Prefix
          backend: {service: {name: {{ $envoy }}-grpc, port: {name: grpc}}}
        {{- end }}
        {{- end }}
        - path: /
          pathType: Prefix
          backend: {service: {name: {{ $envoy }}, port: {name: {{ ternary "https" "http" .root.Values.tls.edge.enabled }}}}}
{{- end -}}

{{- define "tidegate.checkEdge" -}}
{{- $ingress := .Values.ingress -}}
{{- $ways := list -}}
{{- range $name, $on := dict "ingress" $ingress.enabled "nlb" .Values.nlb.enabled "gatewayApi" .Values.gatewayApi.enabled -}}
{{- if $on -}}{{- $ways = append $ways $name -}}{{- end -}}
{{- end -}}
{{- if gt (len $ways) 1 -}}
{{- fail (printf "%s are all enabled: Envoy trusts a fixed number of hops in X-Forwarded-For, so it has one way in" (join " and " (sortAlpha $ways))) -}}
{{- end -}}
{{- $hops := int64 .Values.envoy.xffTrustedHops -}}
{{- if and $ingress.enabled (eq $ingress.className "alb") (ne $hops 1) -}}
{{- fail (printf "envoy.xffTrustedHops is %d, but behind an ALB exactly 1 hop of X-Forwarded-For is the ALB's" $hops) -}}
{{- end -}}
{{- if and .Values.nlb.enabled (ne $hops 0) -}}
{{- fail (printf "envoy.xffTrustedHops is %d, but behind an NLB X-Forwarded-For is the client's own: 0" $hops) -}}
{{- end -}}
{{- if or $ingress.enabled $ingress.private.enabled -}}
{{- if and $ingress.enabled (not $ingress.host) -}}{{- fail "ingress.host is empty: without a name every host's requests would be taken" -}}{{- end -}}
{{- if eq $ingress.className "alb" -}}
{{- if not .Values.aws.enabled -}}{{- fail "ingress.className is alb, which needs aws.enabled" -}}{{- end -}}
{{- if not $ingress.alb.certificateArn -}}{{- fail "ingress.alb.certificateArn is empty: API keys would cross the internet in clear" -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- if $ingress.private.enabled -}}
{{- if not (and $ingress.enabled (eq $ingress.className "alb")) -}}{{- fail "ingress.private is a second ALB beside that of ingress: enable it, with className alb" -}}{{- end -}}
{{- if not (and $ingress.private.host $ingress.private.inboundCidrs) -}}{{- fail "ingress.private needs host and inboundCidrs" -}}{{- end -}}
{{- end -}}
{{- if and .Values.gatewayApi.enabled (not (and .Values.gatewayApi.parentRefs .Values.gatewayApi.hostnames)) -}}
{{- fail "gatewayApi needs parentRefs and hostnames" -}}
{{- end -}}
{{- range $name := list "nlb" "globalAccelerator" "karpenter" "secretsStore" -}}
{{- if and (index $.Values $name).enabled (not $.Values.aws.enabled) -}}{{- fail (printf "%s.enabled needs aws.enabled" $name) -}}{{- end -}}
{{- end -}}
{{- if and .Values.globalAccelerator.enabled (not (or $ingress.enabled .Values.nlb.enabled)) -}}
{{- fail "globalAccelerator has nothing to lead to: enable ingress or nlb" -}}
{{- end -}}
{{- $dns := .Values.externalDns -}}
{{- if $dns.enabled -}}
{{- if not (or $ingress.host .Values.gatewayApi.hostnames) -}}{{- fail "externalDns has no name to publish: set ingress.host or gatewayApi.hostnames" -}}{{- end -}}
{{- if and (or .Values.globalAccelerator.enabled $dns.endpoint) (not $dns.target) -}}
{{- fail "externalDns.target is empty: set it to status.dnsName of the GlobalAccelerator, or the name would lead past it; leave externalDns off until that is known" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.karpenter.enabled (not (and .Values.karpenter.discovery .Values.karpenter.role)) -}}
{{- fail "karpenter needs discovery and role" -}}
{{- end -}}
{{- if and .Values.aws.roles (eq .Values.aws.identity "podIdentity") (not .Values.aws.clusterName) -}}
{{- fail "aws.identity podIdentity needs aws.clusterName" -}}
{{- end -}}
{{- include "tidegate.checkEdgeDrain" . -}}
{{- end -}}

{{/* The end of a pod, in seconds from the notice of a spot node, of which there are 120:

     0        delay                delay + timeout
     |--------|--------------------|----- services: delay + timeout -----|
     health check fails;           Envoy ends
     load balancer turns away (2 checks), then deregistration delay */}}
{{- define "tidegate.checkEdgeDrain" -}}
{{- $drain := .Values.envoy.drain -}}
{{- $alb := .Values.ingress.alb -}}
{{- if or (and .Values.ingress.enabled (eq .Values.ingress.className "alb")) .Values.nlb.enabled -}}
{{- $turned := mul 2 (int64 $alb.healthCheckIntervalSeconds) -}}
{{- if gt $turned (int64 $drain.delaySeconds) -}}
{{- fail (printf "envoy.drain.delaySeconds is %d, but the load balancer turns away after two health checks, %d seconds" (int64 $drain.delaySeconds) $turned) -}}
{{- end -}}
{{- if gt (int64 $alb.deregistrationDelaySeconds) (int64 $drain.timeoutSeconds) -}}
{{- fail (printf "ingress.alb.deregistrationDelaySeconds is %d, but Envoy is gone %d seconds after the load balancer turned away (envoy.drain.timeoutSeconds)" (int64 $alb.deregistrationDelaySeconds) (int64 $drain.timeoutSeconds)) -}}
{{- end -}}
{{- $ingest := .Values.ingest.drain -}}
{{- $sum := add $drain.delaySeconds $alb.deregistrationDelaySeconds $drain.timeoutSeconds $ingest.timeoutSeconds -}}
{{- if gt $sum 110 -}}
{{- fail (printf "turning away (%d s), deregistration (%d s), Envoy's drain (%d s) and the gateway's flush (%d s) take %d seconds, and a spot node has 120 with 10 to spare" (int64 $drain.delaySeconds) (int64 $alb.deregistrationDelaySeconds) (int64 $drain.timeoutSeconds) (int64 $ingest.timeoutSeconds) $sum) -}}
{{- end -}}
{{- end -}}
{{- end -}}
