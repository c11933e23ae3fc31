{{/* What values.schema.json can't say: values that are right by themselves and wrong together. */}}
{{- define "mailferry.validate" -}}
{{- /* helm upgrade --reuse-values: a value that is not there would count as false. */}}
{{- if not (and (hasKey .Values "workerPods") (hasKey .Values.rbac "secrets")) }}
{{- fail "these are the values of an older chart, without those that this one added: upgrade with a file of your values (--values), or with --reset-then-reuse-values (Helm 3.14 and newer), and not with --reuse-values" }}
{{- end }}
{{- if not .Values.rbac.clusterScoped }}
{{- if not .Values.watchNamespaces }}
{{- fail "rbac.clusterScoped: false needs watchNamespaces: an operator of all namespaces has rights in all of them. List the namespaces, or leave rbac.clusterScoped as it is" }}
{{- end }}
{{- if .Values.config.addresses.detectCluster }}
{{- fail "rbac.clusterScoped: false does not let the operator read Nodes and ServiceCIDRs, so set config.addresses.detectCluster: false too, and write the cluster's networks (pods, Services, nodes) into config.addresses.deny" }}
{{- end }}
{{- end }}
{{- if and .Values.policy.grants (not .Values.rbac.secrets) }}
{{- fail "policy.grants needs rbac.secrets: the operator reads the grants' Secrets, and writes access tokens" }}
{{- end }}
{{- if .Values.watchNamespaces }}
{{- range $grant := .Values.policy.grants }}
{{- range $grant.namespaces }}
{{- if not (has . $.Values.watchNamespaces) }}
{{- fail (printf "policy.grants names the namespace %s, which is not among watchNamespaces: nothing is carried out there" .) }}
{{- end }}
{{- end }}
{{- end }}
{{- range .Values.policy.masterUsers }}
{{- if not (has .namespace $.Values.watchNamespaces) }}
{{- fail (printf "policy.masterUsers names the namespace %s, which is not among watchNamespaces: nothing is carried out there" .namespace) }}
{{- end }}
{{- end }}
{{- range .Values.networkPolicy.workerNamespaces }}
{{- if not (has . $.Values.watchNamespaces) }}
{{- fail (printf "networkPolicy.workerNamespaces names the namespace %s, which is not among watchNamespaces: no sync pods run there" .) }}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.podDisruptionBudget }}
{{- if .enabled }}
{{- if and (ne (toString .maxUnavailable) "<nil>") (ne (toString .minAvailable) "<nil>") }}
{{- fail "podDisruptionBudget: give maxUnavailable or minAvailable, not both; set the other to null" }}
{{- end }}
{{- if and (eq (toString .maxUnavailable) "<nil>") (eq (toString .minAvailable) "<nil>") }}
{{- fail "podDisruptionBudget: give maxUnavailable or minAvailable, or set enabled: false" }}
{{- end }}
{{- if and (kindIs "float64" .minAvailable) (gt (int $.Values.replicas) 1) (ge (int .minAvailable) (int $.Values.replicas)) }}
{{- fail (printf "podDisruptionBudget.minAvailable: %d of %d replicas: no node with one of them could ever be drained" (int .minAvailable) (int $.Values.replicas)) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
