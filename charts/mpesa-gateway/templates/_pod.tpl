{{/* Parts of every pod. */}}

{{/* Where a pod runs. Takes (dict "root" $ "component" "api" "values" .Values.api). */}}
{{- define "mpesa-gateway.scheduling" -}}
{{- $root := .root -}}
{{- $pullSecrets := $root.Values.imagePullSecrets -}}
{{- range dig "imagePullSecrets" list ($root.Values.global | default dict) -}}
{{- $pullSecrets = append $pullSecrets (kindIs "string" . | ternary (dict "name" .) .) -}}
{{- end }}
# Off: Kubernetes would set a variable for each Service, and some would begin with our own prefix.
enableServiceLinks: false
{{- with uniq $pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if .values.topologySpreadConstraints }}
topologySpreadConstraints:
{{- $selector := dict "labelSelector" (dict "matchLabels" (include "mpesa-gateway.selectorLabels" (dict "root" $root "component" .component) | fromYaml)) }}
{{- range .values.topologySpreadConstraints }}
  - {{- toYaml (merge (deepCopy .) $selector) | nindent 4 }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Lists that a user adds to; each item may be a template. Takes (dict "root" $ "items" list). */}}
{{- define "mpesa-gateway.extra" -}}
{{- with .items -}}
{{ tpl (toYaml .) $.root }}
{{- end -}}
{{- end -}}

{{/* A pod of ours as uid 10001; (dict "root" $ "uid" 999) for the images of others. */}}
{{- define "mpesa-gateway.podSecurityContext" -}}
{{- $context := deepCopy .root.Values.podSecurityContext -}}
{{- if .uid -}}
{{- range $key := list "runAsUser" "runAsGroup" "fsGroup" -}}
{{- if hasKey $context $key -}}{{- $_ := set $context $key $.uid -}}{{- end -}}
{{- end -}}
{{- end -}}
{{ toYaml $context }}
{{- end -}}

{{/*
Annotations of a pod: what the user wants, and digests of what the chart's own Secrets hold. Their
labels name the chart's version, which alone must restart nothing.
*/}}
{{- define "mpesa-gateway.podAnnotations" -}}
{{- $annotations := dict -}}
{{- range $name, $template := .checksums -}}
{{- $text := include (print $.root.Template.BasePath "/" $template) $.root -}}
{{- if trim $text -}}
{{- $_ := set $annotations (printf "checksum/%s" $name) (fromYaml $text | dig "stringData" dict | toJson | sha256sum) -}}
{{- end -}}
{{- end -}}
{{- with merge (deepCopy .values.podAnnotations) $annotations -}}
{{ toYaml . }}
{{- end -}}
{{- end -}}

{{/* Environment: ours, unless extraEnv has the name. Takes (dict "root" $ "env" text "extra" list). */}}
{{- define "mpesa-gateway.env" -}}
{{- $extra := list -}}
{{- with .extra -}}{{- $extra = fromYamlArray (tpl (toYaml .) $.root) -}}{{- end -}}
{{- $taken := list -}}
{{- range $extra -}}{{- $taken = append $taken .name -}}{{- end -}}
{{- $env := list -}}
{{- range fromYamlArray .env -}}
{{- if not (has .name $taken) -}}{{- $env = append $env . -}}{{- end -}}
{{- end -}}
{{- toYaml (concat $env $extra) -}}
{{- end -}}

{{/* Probes of a container, each merged with what the user wants. Takes (dict "probes" text "values" …). */}}
{{- define "mpesa-gateway.probes" -}}
{{- $probes := fromYaml .probes -}}
{{- range $name, $probe := $probes -}}
{{- $wish := deepCopy (get $.values $name | default dict) -}}
{{- $ours := or (hasKey $wish "exec") (hasKey $wish "tcpSocket") (hasKey $wish "grpc") | ternary (omit $probe "httpGet") $probe -}}
{{- $_ := set $probes $name (mergeOverwrite (deepCopy $ours) $wish) -}}
{{- end -}}
{{ toYaml $probes }}
{{- end -}}

{{/* Waits until the schema is current; with migrations.mode `init` it brings it there itself. */}}
{{- define "mpesa-gateway.waitForSchema" -}}
{{- $migrates := and .Values.migrations.enabled (eq .Values.migrations.mode "init") -}}
- name: {{ $migrates | ternary "migrate" "wait-for-schema" }}
  image: {{ include "mpesa-gateway.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args: [migrate,{{ if not $migrates }} --wait,{{ end }} --timeout, {{ .Values.migrations.waitTimeout | quote }}]
  env:
    {{- include "mpesa-gateway.env" (dict "root" . "env" (include "mpesa-gateway.env.database" .) "extra" .Values.migrations.extraEnv) | nindent 4 }}
  securityContext:
    {{- toYaml .Values.containerSecurityContext | nindent 4 }}
  resources:
    {{- toYaml .Values.migrations.resources | nindent 4 }}
  volumeMounts:
    - name: tmp
      mountPath: /tmp
    {{- include "mpesa-gateway.extra" (dict "root" . "items" .Values.migrations.extraVolumeMounts) | nindent 4 }}
{{- end -}}

{{/* Files that change while a pod runs: mounted as a directory, each Secret may not exist yet. */}}
{{- define "mpesa-gateway.merchantsVolume" -}}
- name: merchants
  projected:
    defaultMode: 0440
    sources:
      {{- range $shard := until (int .Values.operator.shards) }}
      - secret:
          name: {{ include "mpesa-gateway.fullname" $ }}-merchants-{{ $shard }}
          optional: true
      {{- end }}
{{- end -}}

{{/* Digests of the Secrets that API and worker read once, when they start. */}}
{{- define "mpesa-gateway.gatewayChecksums" -}}
app: secret.yaml
postgresql: postgresql/secret.yaml
redis: redis/secret.yaml
simulator: simulator/secret.yaml
{{- end -}}
