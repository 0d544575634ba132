{{/* Environment variables, as YAML lists. docs/configuration.md says what each means. */}}

{{- define "mpesa-gateway.env.logging" -}}
- name: MPESA_LOG_FORMAT
  value: {{ .Values.logging.format | quote }}
- name: MPESA_LOG_LEVEL
  value: {{ .Values.logging.level | quote }}
{{- end -}}

{{- define "mpesa-gateway.env.database" -}}
- name: MPESA_DATABASE_URL
  valueFrom:
    secretKeyRef:
      {{- include "mpesa-gateway.databaseRef" . | nindent 6 }}
{{ include "mpesa-gateway.env.logging" . }}
{{- end -}}

{{/* What the data plane and the operator must agree on. */}}
{{- define "mpesa-gateway.env.platform" -}}
- name: MPESA_ENVIRONMENT
  value: {{ .Values.environment | quote }}
- name: MPESA_METRICS_PORT
  value: "9090"
- name: MPESA_SAFARICOM_BASE_URL
  value: {{ include "mpesa-gateway.baseUrl" . | quote }}
- name: MPESA_SAFARICOM_CALLBACK_URL
  value: {{ include "mpesa-gateway.callbackUrl" . | quote }}
- name: MPESA_SAFARICOM_IPS
  value: {{ join "," .Values.safaricom.allowedCIDRs | quote }}
- name: MPESA_WEBHOOK_ALLOW_PRIVATE
  value: {{ include "mpesa-gateway.webhookAllowPrivate" . | quote }}
{{- end -}}

{{/* API and worker. */}}
{{- define "mpesa-gateway.env.gateway" -}}
{{ include "mpesa-gateway.env.platform" . }}
{{ include "mpesa-gateway.env.database" . }}
- name: MPESA_REDIS_URL
  valueFrom:
    secretKeyRef:
      {{- include "mpesa-gateway.redisRef" . | nindent 6 }}
- name: MPESA_SERVER_PORT
  value: "8080"
- name: MPESA_MERCHANTS_DIR
  value: /etc/mpesa-gateway/merchants
- name: MPESA_TRUSTED_PROXIES
  value: {{ without .Values.api.trustedProxies "none" | join "," | quote }}
{{- range $name, $value := .Values.settings }}
- name: {{ $name }}
  # A number from YAML is a float, and would be written 1e+06.
  value: {{ ternary ($value | int64 | toString) ($value | toString) (kindIs "float64" $value) | quote }}
{{- end }}
{{/* A Secret of the user's own may lack it: then it is derived from the merchant `default`, if there is one. */}}
- name: MPESA_CALLBACK_TOKEN_KEY
  valueFrom:
    secretKeyRef:
      name: {{ include "mpesa-gateway.appSecretName" . }}
      key: MPESA_CALLBACK_TOKEN_KEY
      optional: true
{{- include "mpesa-gateway.env.defaultMerchant" . }}
{{- end -}}

{{/* All of the merchant `default`, or nothing: with half of it the pods would not start. */}}
{{- define "mpesa-gateway.env.defaultMerchant" -}}
{{- $daraja := include "mpesa-gateway.defaultMerchantSecretName" . -}}
{{- $app := include "mpesa-gateway.appSecretName" . -}}
{{- if $daraja }}
{{- range list "MPESA_INTERNAL_SECRET" "MPESA_WEBHOOK_SECRET" }}
- name: {{ . }}
  valueFrom:
    secretKeyRef:
      name: {{ $app }}
      key: {{ . }}
{{- end }}
{{- range list "MPESA_SAFARICOM_CONSUMER_KEY" "MPESA_SAFARICOM_CONSUMER_SECRET" "MPESA_SAFARICOM_PASSKEY" "MPESA_SAFARICOM_SHORT_CODE" }}
- name: {{ . }}
  valueFrom:
    secretKeyRef:
      name: {{ $daraja }}
      key: {{ . }}
{{- end }}
- name: MPESA_SAFARICOM_TILL_NUMBER
  valueFrom:
    secretKeyRef:
      name: {{ $daraja }}
      key: MPESA_SAFARICOM_TILL_NUMBER
      optional: true
{{- end }}
{{- end -}}

{{- define "mpesa-gateway.env.operator" -}}
- name: MPESA_OPERATOR_NAMESPACE
  value: {{ .Release.Namespace | quote }}
- name: MPESA_OPERATOR_INSTANCE
  value: {{ .Release.Name | quote }}
- name: MPESA_OPERATOR_NAME
  value: {{ include "mpesa-gateway.name" . | quote }}
- name: MPESA_OPERATOR_GATEWAY
  value: {{ .Values.operator.gateway | quote }}
- name: MPESA_OPERATOR_FULLNAME
  value: {{ include "mpesa-gateway.fullname" . | quote }}
- name: MPESA_OPERATOR_WATCH_NAMESPACES
  value: {{ join "," .Values.operator.watchNamespaces | quote }}
- name: MPESA_OPERATOR_NAMESPACE_SELECTOR
  value: {{ .Values.operator.namespaceSelector | toJson | quote }}
- name: MPESA_OPERATOR_MAX_MERCHANTS_PER_NAMESPACE
  value: {{ .Values.operator.maxMerchantsPerNamespace | quote }}
- name: MPESA_OPERATOR_DRAIN
  value: {{ printf "%ds" (int .Values.operator.drainSeconds) | quote }}
- name: MPESA_OPERATOR_SECRET_WATCH
  value: {{ .Values.operator.secretWatch.enabled | quote }}
- name: MPESA_OPERATOR_ROTATION_OVERLAP
  value: {{ .Values.operator.rotationOverlap | quote }}
- name: MPESA_OPERATOR_RESYNC
  value: {{ .Values.operator.resyncInterval | quote }}
- name: MPESA_OPERATOR_SHARDS
  value: {{ .Values.operator.shards | quote }}
- name: MPESA_OPERATOR_POD_IP
  valueFrom:
    fieldRef:
      fieldPath: status.podIP
- name: MPESA_OPERATOR_HEALTH_PORT
  value: "8081"
{{ include "mpesa-gateway.env.platform" . }}
{{ include "mpesa-gateway.env.logging" . }}
{{- end -}}

{{- define "mpesa-gateway.env.postgresql" -}}
- name: POSTGRES_USER
  value: mpesa
- name: POSTGRES_DB
  value: mpesa_gateway
- name: POSTGRES_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ include "mpesa-gateway.postgresqlSecretName" . }}
      key: password
- name: PGDATA
  # Not the volume itself: some have a lost+found, and initdb wants an empty directory.
  value: /var/lib/postgresql/data/pgdata
{{- end -}}

{{- define "mpesa-gateway.env.redis" -}}
- name: REDIS_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ include "mpesa-gateway.redisSecretName" . }}
      key: password
- name: REDISCLI_AUTH
  valueFrom:
    secretKeyRef:
      name: {{ include "mpesa-gateway.redisSecretName" . }}
      key: password
{{- end -}}

{{- define "mpesa-gateway.env.simulator" -}}
- name: MPESA_SIMULATOR_HOST
  value: 0.0.0.0
- name: MPESA_SIMULATOR_PORT
  value: "8080"
{{ include "mpesa-gateway.env.logging" . }}
{{- end -}}
