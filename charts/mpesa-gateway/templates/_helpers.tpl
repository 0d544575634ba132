{{/* Names, labels, images and addresses. Each takes the root context unless it says otherwise. */}}

{{- define "mpesa-gateway.name" -}}
mpesa-gateway
{{- end -}}

{{/* The release's name if it names the chart already, else `<release>-mpesa-gateway`. */}}
{{- define "mpesa-gateway.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains "mpesa-gateway" .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-mpesa-gateway" .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Takes (dict "root" $ "component" "api"). These never change: a selector is immutable. */}}
{{- define "mpesa-gateway.selectorLabels" -}}
app.kubernetes.io/name: mpesa-gateway
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{/* Takes (dict "root" $ "component" "api"), or no component for what belongs to all. */}}
{{- define "mpesa-gateway.labels" -}}
{{ include "mpesa-gateway.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: mpesa-gateway
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The same for pods, without versions: a new chart alone must not restart Postgres. */}}
{{- define "mpesa-gateway.podLabels" -}}
{{ include "mpesa-gateway.selectorLabels" . }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "mpesa-gateway.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository ($image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- define "mpesa-gateway.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "mpesa-gateway.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- define "mpesa-gateway.operator.serviceAccountName" -}}
{{- if .Values.operator.serviceAccount.create -}}
{{- .Values.operator.serviceAccount.name | default (printf "%s-operator" (include "mpesa-gateway.fullname" .)) -}}
{{- else -}}
{{- .Values.operator.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- define "mpesa-gateway.appSecretName" -}}
{{- .Values.auth.existingSecret | default (printf "%s-app" (include "mpesa-gateway.fullname" .)) -}}
{{- end -}}

{{- define "mpesa-gateway.postgresqlSecretName" -}}
{{- .Values.postgresql.existingSecret | default (printf "%s-postgresql" (include "mpesa-gateway.fullname" .)) -}}
{{- end -}}

{{- define "mpesa-gateway.redisSecretName" -}}
{{- .Values.redis.existingSecret | default (printf "%s-redis" (include "mpesa-gateway.fullname" .)) -}}
{{- end -}}

{{/* Where the URI of Postgres stands, as a secretKeyRef. */}}
{{- define "mpesa-gateway.databaseRef" -}}
{{- if .Values.postgresql.enabled -}}
name: {{ include "mpesa-gateway.postgresqlSecretName" . }}
key: uri
{{- else -}}
name: {{ .Values.externalDatabase.existingSecret }}
key: {{ .Values.externalDatabase.existingSecretKey }}
{{- end -}}
{{- end -}}

{{/* Where the URI of Redis stands, as a secretKeyRef. */}}
{{- define "mpesa-gateway.redisRef" -}}
{{- if .Values.redis.enabled -}}
name: {{ include "mpesa-gateway.redisSecretName" . }}
key: uri
{{- else -}}
name: {{ .Values.externalRedis.existingSecret }}
key: {{ .Values.externalRedis.existingSecretKey }}
{{- end -}}
{{- end -}}

{{/* The Secret that describes the merchant `default`; empty when there is none. */}}
{{- define "mpesa-gateway.defaultMerchantSecretName" -}}
{{- if .Values.safaricom.existingSecret -}}
{{- .Values.safaricom.existingSecret -}}
{{- else if .Values.simulator.enabled -}}
{{- include "mpesa-gateway.fullname" . }}-simulator
{{- end -}}
{{- end -}}

{{- define "mpesa-gateway.apiUrl" -}}
{{- $port := int .Values.api.service.port -}}
http://{{ include "mpesa-gateway.fullname" . }}-api.{{ .Release.Namespace }}.svc{{ if ne $port 80 }}:{{ $port }}{{ end }}
{{- end -}}

{{- define "mpesa-gateway.baseUrl" -}}
{{- if .Values.safaricom.baseUrl -}}
{{- .Values.safaricom.baseUrl -}}
{{- else if .Values.simulator.enabled -}}
http://{{ include "mpesa-gateway.fullname" . }}-simulator.{{ .Release.Namespace }}.svc:8080
{{- else if eq .Values.environment "production" -}}
https://api.safaricom.co.ke
{{- else -}}
https://sandbox.safaricom.co.ke
{{- end -}}
{{- end -}}

{{- define "mpesa-gateway.callbackUrl" -}}
{{- .Values.safaricom.callbackUrl | default (printf "%s/callback" (include "mpesa-gateway.apiUrl" .)) -}}
{{- end -}}

{{/* "true" or "false": only the simulator opens private endpoints by itself. */}}
{{- define "mpesa-gateway.webhookAllowPrivate" -}}
{{- if kindIs "invalid" .Values.webhooks.allowPrivate -}}
{{- .Values.simulator.enabled -}}
{{- else -}}
{{- .Values.webhooks.allowPrivate -}}
{{- end -}}
{{- end -}}

{{/*
A generated value of a Secret: what the cluster has already, else `fresh`, and the same for the
whole rendering. Takes (dict "root" $ "secret" name "key" key "fresh" text).
*/}}
{{- define "mpesa-gateway.generated" -}}
{{- $values := .root.Values -}}
{{- if not (hasKey $values "generatedOnce") -}}
{{- $_ := set $values "generatedOnce" dict -}}
{{- end -}}
{{- $id := printf "%s/%s" .secret .key -}}
{{- if not (hasKey $values.generatedOnce $id) -}}
{{- $existing := lookup "v1" "Secret" .root.Release.Namespace .secret -}}
{{- $known := get ($existing.data | default dict) .key -}}
{{- $_ := set $values.generatedOnce $id (ternary ($known | b64dec) .fresh (not (empty $known))) -}}
{{- end -}}
{{- get $values.generatedOnce $id -}}
{{- end -}}
