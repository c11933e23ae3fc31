{{/* What the operator may do in namespaces with migrations. */}}
{{- define "mailferry.controllerRules" -}}
# It writes about what users wrote, and never changes it.
- apiGroups: [mailferry.io]
  resources: [mailmigrations, mailservers]
  verbs: [get, list, watch]
- apiGroups: [mailferry.io]
  resources: [mailmigrations/status, mailservers/status, mailboxsyncs/status]
  verbs: [get, patch]
- apiGroups: [mailferry.io]
  resources: [mailboxsyncs]
  verbs: [get, list, watch, create, patch, delete]
# Where a cluster asks for it (OwnerReferencesPermissionEnforcement): children that hold up their owner's deletion.
- apiGroups: [mailferry.io]
  resources: [mailmigrations/finalizers, mailboxsyncs/finalizers]
  verbs: [update]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, patch, delete]
{{- if .Values.rbac.secrets }}
# One Secret at a time, by the names that migrations and grants give; each CSV is split into one Secret per mailbox, and
# the access tokens that grants give are written into one per mailbox.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create, patch, delete]
{{- end }}
# CSVs without passwords, by the names that migrations give.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get]
# The identity of sync pods in each migration's namespace.
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [get, create, patch]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [rolebindings]
  verbs: [get, create, patch]
# One that binds another role than it should is made anew: what a RoleBinding binds can't be changed.
- apiGroups: [rbac.authorization.k8s.io]
  resources: [rolebindings]
  resourceNames: [mailferry-worker]
  verbs: [delete]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [{{ include "mailferry.workerRoleKind" . | lower }}s]
  resourceNames: [{{ include "mailferry.workerRoleName" . }}]
  verbs: [bind]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{/* All that a sync pod may do: report. The operator binds it in each migration's namespace. */}}
{{- define "mailferry.workerRules" -}}
- apiGroups: [mailferry.io]
  resources: [mailboxsyncs/status]
  verbs: [patch]
{{- end }}

{{- define "mailferry.controllerSubjects" -}}
- kind: ServiceAccount
  name: {{ include "mailferry.serviceAccountName" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}
