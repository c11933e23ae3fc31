{{/* The operator's configuration file. */}}
{{- define "mailferry.config" -}}
{{- with .Values.config -}}
maxSyncs: {{ int .maxSyncs }}
{{- with .maxSyncsPerNamespace }}
maxSyncsPerNamespace: {{ int . }}
{{- end }}
namespaces: {{ toJson (default dict .namespaces) }}
podStartsPerSecond: {{ int .podStartsPerSecond }}
maxMailboxesPerNamespace: {{ int .maxMailboxesPerNamespace }}
hostLimits: {{ toJson .hostLimits }}
addresses:
  detectCluster: {{ .addresses.detectCluster }}
  deny: {{ toJson .addresses.deny }}
  allow: {{ toJson .addresses.allow }}
workerLogLevel: {{ .workerLogLevel | quote }}
injectSidecars: {{ .injectSidecars | default false }}
schedulingTimeout: {{ .schedulingTimeout | default "30m" | quote }}
{{- end }}
workerPods:
{{- with .Values.workerPods }}
  resources:
    {{- range $part := list "requests" "limits" }}
    {{- with index $.Values.workerPods.resources $part }}
    {{ $part }}:
      {{- range $name, $quantity := . }}
      {{ $name | quote }}: {{ $quantity | toString | quote }}
      {{- end }}
    {{- else }}
    {{ $part }}: {}
    {{- end }}
    {{- end }}
  nodeSelector: {{ toJson .nodeSelector }}
  tolerations: {{ toJson .tolerations }}
  priorityClassName: {{ .priorityClassName | default nil | toJson }}
  labels: {{ toJson .labels }}
  annotations: {{ toJson .annotations }}
  runAsUser: {{ .runAsUser | toJson }}
  fsGroup: {{ .fsGroup | toJson }}
  dnsConfig: {{ .dnsConfig | default nil | toJson }}
{{- end }}
  caConfigMaps: {{ .Values.caConfigMaps | default list | toJson }}
masterUsers: {{ toJson .Values.policy.masterUsers }}
grants: {{ toJson (default list .Values.policy.grants) }}
policy:
  allowedDestinations: {{ toJson .Values.policy.allowedDestinations }}
  allowedSourceAddresses: {{ toJson .Values.policy.allowedSourceAddresses }}
workerRole: {kind: {{ include "mailferry.workerRoleKind" . }}, name: {{ include "mailferry.workerRoleName" . }}}
{{- $secrets := list }}
{{- range .Values.imagePullSecrets }}{{ $secrets = append $secrets .name }}{{ end }}
imagePullSecrets: {{ toJson $secrets }}
{{- end }}

{{/* The operator's environment, which `mailferry doctor` reads too. */}}
{{- define "mailferry.env" -}}
# Sync pods use the operator's image.
- {name: MAILFERRY_WORKER_IMAGE, value: {{ include "mailferry.image" . | quote }}}
- {name: MAILFERRY_WORKER_IMAGE_PULL_POLICY, value: {{ .Values.image.pullPolicy }}}
- {name: MAILFERRY_CONFIG, value: /etc/mailferry/operator.yaml}
{{- with .Values.watchNamespaces }}
- {name: MAILFERRY_WATCH_NAMESPACES, value: {{ join "," . | quote }}}
{{- end }}
{{- if not .Values.rbac.secrets }}
- {name: MAILFERRY_READ_SECRETS, value: "false"}
{{- end }}
- {name: MAILFERRY_LEASE_NAME, value: {{ include "mailferry.fullname" . }}-controller}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- {name: RUST_LOG, value: {{ .Values.config.logLevel | quote }}}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}
