{{/* The labels of an object that a Prometheus or a Grafana looks for by labels of its own: a list of the root and these. */}}
{{- define "mailferry.monitoringLabels" -}}
{{- merge (dict) (default dict (index . 1)) (include "mailferry.labels" (index . 0) | fromYaml) | toYaml }}
{{- end }}

{{/* How a PodMonitor or ServiceMonitor scrapes. */}}
{{- define "mailferry.scrape" -}}
path: /metrics
{{- with .interval }}
interval: {{ . }}
{{- end }}
{{- with .scrapeTimeout }}
scrapeTimeout: {{ . }}
{{- end }}
{{- with .relabelings }}
relabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .metricRelabelings }}
metricRelabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
