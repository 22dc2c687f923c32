{{/* The name of everything that belongs to a release. */}}
{{- define "trigate.name" -}}
{{ .Release.Name | trunc 53 | trimSuffix "-" }}
{{- end }}

{{/* The labels by which pods are chosen; they must not change. */}}
{{- define "trigate.selector" -}}
{{- if .Values.takeOverFromEnvoyGateway -}}
app.kubernetes.io/name: envoy
app.kubernetes.io/component: proxy
app.kubernetes.io/managed-by: envoy-gateway
{{- else -}}
app.kubernetes.io/name: trigate
app.kubernetes.io/component: proxy
{{- end }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* The labels of everything. */}}
{{- define "trigate.labels" -}}
{{ include "trigate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "trigate.controllerName" -}}
{{- if .Values.gatewayClass.controllerName -}}
{{ .Values.gatewayClass.controllerName }}
{{- else if .Values.takeOverFromEnvoyGateway -}}
gateway.envoyproxy.io/gatewayclass-controller
{{- else -}}
trigate.dev/gateway-controller
{{- end }}
{{- end }}

{{/* Of a gateway: a dict of `root`, `name` and `gateway`. */}}
{{- define "trigate.object" -}}
{{ .gateway.object | default (printf "%s/%s" .root.Release.Namespace .name) }}
{{- end }}
