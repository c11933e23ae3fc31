{{- define "mailferry.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The beginning of all names. 46 characters: the longest ending that is put behind it takes the rest of a label's 63. */}}
{{- define "mailferry.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 46 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 46 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 46 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{/*
What stands behind names of objects that lie in no namespace: nothing for an operator of all namespaces, of which a cluster
has one; the release's namespace otherwise, as there may be releases of one name in several.
*/}}
{{- define "mailferry.clusterSuffix" -}}
{{- if .Values.watchNamespaces }}.{{ .Release.Namespace }}{{ end }}
{{- end }}

{{- define "mailferry.selectorLabels" -}}
app.kubernetes.io/name: {{ include "mailferry.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "mailferry.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "mailferry.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The operator's pods, which Deployment, PodDisruptionBudget, NetworkPolicy and PodMonitor select. */}}
{{- define "mailferry.controllerSelectorLabels" -}}
{{ include "mailferry.selectorLabels" . }}
app.kubernetes.io/component: controller
{{- end }}

{{- define "mailferry.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "mailferry.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "mailferry.image" -}}
{{- with .Values.image }}
{{- if .digest }}
{{- printf "%s@%s" .repository .digest }}
{{- else }}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) }}
{{- end }}
{{- end }}
{{- end }}

{{/* The kind of the role that sync pods get: in each namespace one of its own, where the namespaces are known. */}}
{{- define "mailferry.workerRoleKind" -}}
{{- if .Values.watchNamespaces }}Role{{ else }}ClusterRole{{ end }}
{{- end }}

{{- define "mailferry.workerRoleName" -}}
{{ include "mailferry.fullname" . }}-worker
{{- end }}

{{/* Namespaces whose sync pods get a NetworkPolicy. */}}
{{- define "mailferry.workerNamespaces" -}}
{{- concat .Values.watchNamespaces .Values.networkPolicy.workerNamespaces | uniq | toJson }}
{{- end }}
