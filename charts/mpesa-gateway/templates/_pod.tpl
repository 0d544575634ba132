{{/* Parts of every pod. */}}

{{/* Where a pod runs. Takes (dict "root" $ "component" "api" "values" .Values.api). */}}
{{- define "mpesa-gateway.scheduling" -}}
{{- $root := .root -}}
{{- with $root.Values.imagePullSecrets }}
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

{{/* Annotations of a pod: what the user wants, and digests of the chart's own Secrets. */}}
{{- define "mpesa-gateway.podAnnotations" -}}
{{- $annotations := dict -}}
{{- range $name, $template := .checksums -}}
{{- $text := include (print $.root.Template.BasePath "/" $template) $.root -}}
{{- if trim $text -}}
{{- $_ := set $annotations (printf "checksum/%s" $name) (sha256sum $text) -}}
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

{{/* Waits until the migration Job has done its work. */}}
{{- define "mpesa-gateway.waitForSchema" -}}
- name: wait-for-schema
  image: {{ include "mpesa-gateway.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args: [migrate, --wait, --timeout, {{ .Values.migrations.waitTimeout | quote }}]
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
