{{- define "fedjob.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 46 | trimSuffix "-" -}}
{{- end -}}

{{- define "fedjob.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 46 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "fedjob.name" . -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 46 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "fedjob.operator" -}}
{{- include "fedjob.fullname" . }}-operator
{{- end -}}

{{- define "fedjob.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "fedjob.operator" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "fedjob.selector" -}}
app.kubernetes.io/name: fedjob-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "fedjob.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: fedjob
{{ include "fedjob.selector" . }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Reference of an image: (dict "image" … "root" $). */}}
{{- define "fedjob.image" -}}
{{- with .image.registry }}{{ . }}/{{ end }}{{ .image.repository }}
{{- if .image.digest }}@{{ .image.digest }}{{ else }}:{{ default .root.Chart.AppVersion .image.tag }}{{ end }}
{{- end -}}

{{/* Labels as key=value with commas between them. */}}
{{- define "fedjob.pairs" -}}
{{- $pairs := list -}}
{{- range $key, $value := . }}{{ $pairs = append $pairs (printf "%s=%s" $key $value) }}{{ end -}}
{{- join "," $pairs -}}
{{- end -}}

{{- define "fedjob.podSecurityContext" -}}
{{- $restricted := dict "runAsNonRoot" true "runAsUser" 10001 "runAsGroup" 10001 "fsGroup" 10001 "seccompProfile" (dict "type" "RuntimeDefault") -}}
{{- toYaml (mergeOverwrite $restricted (deepCopy .Values.operator.podSecurityContext)) -}}
{{- end -}}

{{- define "fedjob.securityContext" -}}
{{- $restricted := dict "allowPrivilegeEscalation" false "readOnlyRootFilesystem" true "capabilities" (dict "drop" (list "ALL")) -}}
{{- toYaml (mergeOverwrite $restricted (deepCopy .Values.operator.securityContext)) -}}
{{- end -}}

{{- define "fedjob.testNamespace" -}}
{{- default (default .Release.Namespace (first .Values.watchNamespaces)) .Values.test.namespace -}}
{{- end -}}

{{/* What the operator does in the namespaces of jobs; a test compares it with its code. */}}
{{- define "fedjob.jobRules" -}}
- apiGroups: [fedjob.dev]
  resources: [federatedjobs]
  verbs: [get, list, watch, delete]
- apiGroups: [fedjob.dev]
  resources: [federatedjobs/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [pods]
  verbs: [create, get, list, watch, delete]
- apiGroups: [""]
  resources: [services, persistentvolumeclaims]
  verbs: [create, get]
- apiGroups: [""]
  resources: [secrets]
  verbs: [create]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [create, get, update]
- apiGroups: [""]
  resources: [events]
  verbs: [create, list]
{{- if .Values.networkPolicy.enabled }}
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [create, get]
{{- end }}
{{- end -}}

{{/* What becomes of the CRD: "render", or the name of its owner, who keeps it. */}}
{{- define "fedjob.crd" -}}
{{- $found := lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" "federatedjobs.fedjob.dev" -}}
{{- $annotations := dig "metadata" "annotations" (dict) $found -}}
{{- $owner := get $annotations "meta.helm.sh/release-name" -}}
{{- $namespace := get $annotations "meta.helm.sh/release-namespace" -}}
{{- if or .Values.crds.adopt (not $found) (and (eq $owner .Release.Name) (eq $namespace .Release.Namespace)) -}}
render
{{- else if $owner -}}
release {{ $owner }} in namespace {{ $namespace }}
{{- else -}}
no release
{{- end -}}
{{- end -}}
