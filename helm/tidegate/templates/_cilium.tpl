{{/* Peers in Cilium's words. */}}

{{/* A selector of Kubernetes with a prefix in front of its keys, as YAML. Arguments: selector, prefix. */}}
{{- define "tidegate.cilium.selector" -}}
{{- $labels := dict -}}
{{- $prefix := .prefix -}}
{{- range $key, $value := .selector.matchLabels -}}{{- $_ := set $labels (printf "%s%s" $prefix $key) $value -}}{{- end -}}
{{- $expressions := list -}}
{{- range .selector.matchExpressions -}}
{{- $expressions = append $expressions (set (deepCopy .) "key" (printf "%s%s" $prefix .key)) -}}
{{- end -}}
{{- dict "labels" $labels "expressions" $expressions | toJson -}}
{{- end -}}

{{/* A NetworkPolicy peer with selectors as an endpoint selector, as JSON. */}}
{{- define "tidegate.cilium.endpoint" -}}
{{- $pods := include "tidegate.cilium.selector" (dict "selector" (.podSelector | default dict) "prefix" "k8s:") | fromJson -}}
{{- $spaces := include "tidegate.cilium.selector" (dict "selector" (.namespaceSelector | default dict) "prefix" "k8s:io.cilium.k8s.namespace.labels.") | fromJson -}}
{{- $expressions := concat $pods.expressions $spaces.expressions -}}
{{- if and (hasKey . "namespaceSelector") (not $spaces.labels) (not $spaces.expressions) -}}
{{- /* Every namespace; without a word of namespaces it would be the policy's own. */ -}}
{{- $expressions = append $expressions (dict "key" "k8s:io.kubernetes.pod.namespace" "operator" "Exists") -}}
{{- end -}}
{{- $selector := dict -}}
{{- with merge (deepCopy $pods.labels) $spaces.labels -}}{{- $_ := set $selector "matchLabels" . -}}{{- end -}}
{{- with $expressions -}}{{- $_ := set $selector "matchExpressions" . -}}{{- end -}}
{{- $selector | toJson -}}
{{- end -}}

{{/* The peers of a flow, one list for each kind that Cilium has, as JSON. A name without peers becomes the
     pods of its namespace, a CIDR, or a name that Cilium follows in DNS. Arguments: root, flow. */}}
{{- define "tidegate.cilium.peers" -}}
{{- $root := .root -}}
{{- $flow := .flow -}}
{{- $endpoints := list -}}
{{- $cidrs := list -}}
{{- $names := list -}}
{{- if $flow.component -}}
{{- $selector := include "tidegate.component.selector" (dict "root" $root "component" $flow.component) | fromYaml -}}
{{- $endpoints = list (include "tidegate.cilium.endpoint" (dict "podSelector" (dict "matchLabels" $selector)) | fromJson) -}}
{{- end -}}
{{- range $flow.peers -}}
{{- if .ipBlock -}}{{- $cidrs = append $cidrs .ipBlock -}}
{{- else -}}{{- $endpoints = append $endpoints (include "tidegate.cilium.endpoint" . | fromJson) -}}{{- end -}}
{{- end -}}
{{- if not $flow.peers -}}
{{- range $host := $flow.hosts -}}
{{- $short := $host | trimSuffix "." | trimSuffix (printf ".%s" $root.Values.clusterDomain) -}}
{{- $parts := splitList "." (trimSuffix ".svc" $short) -}}
{{- if regexMatch "^[0-9.]+$" $host -}}
{{- $cidrs = append $cidrs (dict "cidr" (printf "%s/32" $host)) -}}
{{- else if or (ne $short $host) (hasSuffix ".svc" $short) (le (len $parts) 2) -}}
{{- $space := ternary (include "tidegate.namespace" $root) (last $parts) (eq (len $parts) 1) -}}
{{- $endpoints = append $endpoints (dict "matchLabels" (dict "k8s:io.kubernetes.pod.namespace" $space)) -}}
{{- else -}}
{{- $names = append $names (dict "matchName" $host) -}}
{{- end -}}
{{- end -}}
{{- range $flow.names -}}{{- $names = append $names (dict "matchPattern" .) -}}{{- end -}}
{{- end -}}
{{- dict "Endpoints" (uniq $endpoints) "CIDRSet" (uniq $cidrs) "FQDNs" (uniq $names) | toJson -}}
{{- end -}}

{{/* Rules of one direction for a flow: Cilium wants one for each kind of peer. Arguments: root, flow,
     direction (from, to), rules (of layer 7, or nothing). */}}
{{- define "tidegate.cilium.rules" -}}
{{- $flow := .flow -}}
{{- $direction := .direction -}}
{{- $ports := list -}}
{{- range $flow.ports -}}{{- $ports = append $ports (dict "port" (printf "%d" (int64 .)) "protocol" $flow.protocol) -}}{{- end -}}
{{- $toPorts := dict "ports" $ports -}}
{{- with .rules -}}{{- $_ := set $toPorts "rules" . -}}{{- end -}}
{{- $rules := list -}}
{{- range $kind, $peers := include "tidegate.cilium.peers" . | fromJson -}}
{{- if $peers -}}
{{- $rules = append $rules (dict (printf "%s%s" $direction $kind) $peers "toPorts" (list $toPorts)) -}}
{{- end -}}
{{- end -}}
{{- if not $rules -}}{{- $rules = list (dict (printf "%sEntities" $direction) (list "all") "toPorts" (list $toPorts)) -}}{{- end -}}
{{- toYaml $rules -}}
{{- end -}}

{{/* Questions to DNS. */}}
{{- define "tidegate.cilium.dns" -}}
{{- /* Cilium learns from these answers which addresses a name stands for. */}}
- toEndpoints:
    - matchLabels: {k8s:io.kubernetes.pod.namespace: kube-system, k8s:k8s-app: kube-dns}
    - matchLabels: {k8s:io.kubernetes.pod.namespace: kube-system, k8s:k8s-app: node-local-dns}
  toPorts:
    - ports: [{port: "53", protocol: ANY}]
      rules: {dns: [{matchPattern: "*"}]}
{{- /* NodeLocal DNSCache on the node's network is the host to Cilium, whatever its address. */}}
- toEntities: [host]
  toPorts:
    - ports: [{port: "53", protocol: ANY}]
      rules: {dns: [{matchPattern: "*"}]}
{{- end -}}
