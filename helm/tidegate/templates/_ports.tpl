{{/* Ports inside the pods. Nothing outside the chart depends on them, hence they are no values. */}}
{{- define "tidegate.ports" -}}
envoy: {edge: 8080, edgeTls: 8444, breakGlass: 8443, status: 9902, loopbackAdmin: 9901}
extAuthz: {grpc: 9001, admin: 9002}
ratelimit: {grpc: 8081, http: 8080, admin: 6070}
gateway: {http: 8080, admin: 8090}
writer: {admin: 8090}
{{- end -}}
