{{/* All names begin with it. */}}
{{- define "swarm.prefix" -}}
{{- $prefix := ternary .Values.namePrefix (printf "%s-" .Release.Name) (kindIs "string" .Values.namePrefix) -}}
{{- if gt (len $prefix) 36 }}{{ fail "namePrefix, or the release's name, is longer than 36 characters: names of pods would be too long" }}{{ end -}}
{{- $prefix -}}
{{- end -}}

{{- define "swarm.cluster" -}}
{{- .Values.cluster | default .Release.Name -}}
{{- end -}}

{{/* What a release's pods are chosen by: two of them may be in one namespace. */}}
{{- define "swarm.ours" -}}
app.kubernetes.io/part-of: llama-swarm
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "swarm.objectLabels" -}}
{{ include "swarm.ours" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{/* Of pods and of what makes them. [root, kind] */}}
{{- define "swarm.labels" -}}
app.kubernetes.io/name: {{ index . 1 }}
app.kubernetes.io/component: {{ index . 1 }}
{{ include "swarm.ours" (index . 0) }}
{{- end -}}

{{- define "swarm.selector" -}}
app.kubernetes.io/name: {{ index . 1 }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
{{- end -}}

{{- define "swarm.member" -}}
app.kubernetes.io/component: {{ index . 1 }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
{{- end -}}

{{/* [root, values of the kind, image] */}}
{{- define "swarm.image" -}}
{{- $root := index . 0 -}}
image: {{ printf "%sllama-swarm/%s:%s" $root.Values.image.registry (index . 2) ((index . 1).tag | default $root.Values.image.tag | default $root.Chart.AppVersion) | quote }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
{{- end -}}

{{/* Annotations of pods: [root, values of the kind, metrics port, ConfigMaps whose change makes new pods] */}}
{{- define "swarm.podAnnotations" -}}
{{- $root := index . 0 -}}
prometheus.io/scrape: "true"
prometheus.io/port: {{ index . 2 | quote }}
prometheus.io/path: /metrics
checksum/settings: {{ include "swarm.settings" $root | sha256sum }}
{{- with (index . 1).podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* What is the same in all pods: [root, values of the kind, name of the service account] */}}
{{- define "swarm.pod" -}}
{{- $root := index . 0 -}}
serviceAccountName: {{ include "swarm.prefix" $root }}{{ index . 2 }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  {{- if not $root.Values.openshift }}
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  {{- end }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: { type: RuntimeDefault }
{{- with (index . 1).nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with (index . 1).tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "swarm.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
{{- end -}}

{{- define "swarm.rendezvous" -}}
- { name: LLAMA_SWARM_RENDEZVOUS, value: "{{ include "swarm.prefix" . }}rendezvous:4001" }
{{- end -}}

{{- define "swarm.hubToken" -}}
- name: HF_TOKEN
  valueFrom: { secretKeyRef: { name: {{ .Values.secrets.hub }}, key: token, optional: true } }
{{- end -}}

{{- define "swarm.swarmPorts" -}}
- { name: swarm-quic, containerPort: 4001, protocol: UDP }
- { name: swarm-tcp, containerPort: 4001, protocol: TCP }
{{- end -}}

{{- define "swarm.servicePorts" -}}
- { name: swarm-quic, port: 4001, protocol: UDP, targetPort: swarm-quic }
- { name: swarm-tcp, port: 4001, protocol: TCP, targetPort: swarm-tcp }
{{- end -}}

{{- define "swarm.secretMount" -}}
- { name: secret, mountPath: /etc/llama-swarm/secret, readOnly: true }
{{- end -}}

{{- define "swarm.secretVolume" -}}
- name: secret
  secret: { secretName: {{ .Values.secrets.swarm }}, defaultMode: 0440 }
{{- end -}}

{{/* [root, name, size] */}}
{{- define "swarm.claim" -}}
- metadata: { name: {{ index . 1 }} }
  spec:
    accessModes: [ReadWriteOnce]
    {{- with (index . 0).Values.storageClass }}
    storageClassName: {{ . }}
    {{- end }}
    resources: { requests: { storage: {{ index . 2 }} } }
{{- end -}}

{{/* Probes by gRPC: [port, service or "", period and timeout of startup, failures] */}}
{{- define "swarm.liveness" -}}
readinessProbe:
  grpc: { port: {{ .port }}{{ with .service }}, service: {{ . }}{{ end }} }
  periodSeconds: 5
  timeoutSeconds: 3
  {{- with .readinessFailures }}
  failureThreshold: {{ . }}
  {{- end }}
livenessProbe:
  grpc: { port: {{ .port }} }
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
{{- end -}}

{{/* What all nodes agree on. */}}
{{- define "swarm.settings" -}}
LLAMA_SWARM_CLUSTER: {{ include "swarm.cluster" . | quote }}
LLAMA_SWARM_TOTAL_SHARDS: {{ .Values.shards | quote }}
LLAMA_SWARM_LISTEN: /ip4/0.0.0.0/udp/4001/quic-v1,/ip4/0.0.0.0/tcp/4001
LLAMA_SWARM_SECRET_FILE: /etc/llama-swarm/secret/swarm.secret
LLAMA_SWARM_LOG_FORMAT: json
{{- range $name, $value := .Values.settings }}
{{ $name }}: {{ $value | quote }}
{{- end }}
{{- end -}}

{{/* Of the policies: whom a rule is about. [root, list of kinds] */}}
{{- define "swarm.kinds" -}}
matchLabels: { app.kubernetes.io/instance: {{ (index . 0).Release.Name }} }
matchExpressions:
  - { key: app.kubernetes.io/component, operator: In, values: [{{ join ", " (index . 1) }}] }
{{- end -}}
