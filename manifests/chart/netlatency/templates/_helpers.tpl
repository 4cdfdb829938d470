{{/* Names do not follow the release's: two installations need two scheduler
names anyway, and the CLI looks for these. */}}
{{- define "netlatency.fullname" -}}
{{- .Values.fullnameOverride | default .Chart.Name | trunc 53 | trimSuffix "-" -}}
{{- end -}}

{{- define "netlatency.agent" -}}
{{- include "netlatency.fullname" . }}-agent
{{- end -}}

{{- define "netlatency.scheduler" -}}
{{- include "netlatency.fullname" . }}-scheduler
{{- end -}}

{{/* The Service name of the EndpointSlices in which the scheduler tells the
agents where targets are, and the name of its Lease for that. */}}
{{- define "netlatency.targets" -}}
{{- $given := get .Values.scheduler.args "targetSlices" | default dict -}}
{{- get $given "service" | default (printf "%s-targets" (include "netlatency.fullname" .)) -}}
{{- end -}}

{{/* What never changes in the life of a release. Takes a dict: root, component. */}}
{{- define "netlatency.selectorLabels" -}}
app.kubernetes.io/name: netlatency
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "netlatency.labels" -}}
{{ include "netlatency.selectorLabels" . }}
app.kubernetes.io/part-of: netlatency
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Takes a dict: root, image. */}}
{{- define "netlatency.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* What Pod Security "restricted" asks of a pod, and some more of a container. */}}
{{- define "netlatency.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "netlatency.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* NetLatencyArgs: ours, the targets and rules, and over them the user's. */}}
{{- define "netlatency.args" -}}
{{- $source := dict "agents" (dict "namespace" .Release.Namespace "service" (include "netlatency.agent" .)) -}}
{{- $given := get .Values.scheduler.args "source" | default dict -}}
{{- if or (hasKey $given "prometheus") (hasKey $given "file") -}}
{{- $source = dict -}}
{{- end -}}
{{- $args := dict
    "apiVersion" "kubescheduler.config.k8s.io/v1"
    "kind" "NetLatencyArgs"
    "source" $source
    "targetSlices" (dict "namespace" (dig "agents" "namespace" .Release.Namespace $given) "service" (include "netlatency.targets" .))
    "targets" .Values.targets -}}
{{- with .Values.rules -}}
{{- $_ := set $args "rules" . -}}
{{- end -}}
{{- mergeOverwrite $args (deepCopy .Values.scheduler.args) | toYaml -}}
{{- end -}}
