{{/* Names, labels, images and addresses. Each takes the root context unless it says otherwise. */}}

{{/* The chart's own name, or its alias where a chart depends on it twice. */}}
{{- define "mpesa-gateway.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* The release's name if it names the chart already, else `<release>-<name>`. */}}
{{- define "mpesa-gateway.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "mpesa-gateway.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "mpesa-gateway.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Takes (dict "root" $ "component" "api"). These never change: a selector is immutable. */}}
{{- define "mpesa-gateway.selectorLabels" -}}
app.kubernetes.io/name: {{ include "mpesa-gateway.name" .root }}
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
{{- $repository := include "mpesa-gateway.mirrored" (dict "root" . "image" $image.repository) -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository ($image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* An image from the platform's registry, where there is one. Takes (dict "root" $ "image" text). */}}
{{- define "mpesa-gateway.mirrored" -}}
{{- $registry := dig "imageRegistry" "" (.root.Values.global | default dict) -}}
{{- $first := first (splitList "/" .image) -}}
{{- $named := and (contains "/" .image) (or (contains "." $first) (contains ":" $first) (eq $first "localhost")) -}}
{{- if not $registry -}}
{{- .image -}}
{{- else if $named -}}
{{- printf "%s/%s" (trimSuffix "/" $registry) (trimPrefix (printf "%s/" $first) .image) -}}
{{- else -}}
{{- printf "%s/%s" (trimSuffix "/" $registry) .image -}}
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

{{/*
"true" when payments at Daraja's address are real: it is neither the sandbox, nor loopback, nor
private. The same rule as the gateway's own; tests/chart/test_refusals.py compares the two.
*/}}
{{- define "mpesa-gateway.movesRealMoney" -}}
{{- $url := include "mpesa-gateway.baseUrl" . -}}
{{- $host := (urlParse $url).hostname | lower | trimSuffix "." -}}
{{- $name := `^(sandbox\.safaricom\.co\.ke|[a-z_-][a-z0-9_-]*|(.*\.)?(localhost|local|internal|intranet|lan|home|corp|private|svc|test|invalid|arpa|onion|example))$` -}}
{{- $v4 := `^(127\.|10\.|192\.168\.|169\.254\.|172\.(1[6-9]|2[0-9]|3[01])\.|100\.(6[4-9]|[7-9][0-9]|1[01][0-9]|12[0-7])\.)[0-9.]+$` -}}
{{- $v6 := `^(::1$|f[cd][0-9a-f]{2}:|fe[89ab][0-9a-f]:)` -}}
{{- $isOurs := or (regexMatch $name $host) (regexMatch $v4 $host) (regexMatch $v6 $host) -}}
{{- or (regexMatch `[@\\\\]` $url) (not $isOurs) -}}
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

{{/* Of the binding that lets an operator work: whose MerchantConfigs it serves, and for which release. */}}
{{- define "mpesa-gateway.operator.bindingLabels" -}}
mpesa-gateway.dev/gateway: {{ .Values.operator.gateway }}
mpesa-gateway.dev/release-namespace: {{ .Release.Namespace }}
{{- end -}}

{{/*
Releases whose operator serves MerchantConfigs of the same gateway in namespaces of ours, as a YAML
list. Found by their bindings. Who installs into single namespaces may not see those of a cluster.
*/}}
{{- define "mpesa-gateway.operator.rivals" -}}
{{- $bindings := list -}}
{{- $watched := .Values.operator.watchNamespaces -}}
{{- range $watched -}}
{{- $bindings = concat $bindings ((lookup "rbac.authorization.k8s.io/v1" "RoleBinding" . "").items | default list) -}}
{{- end -}}
{{- if not $watched -}}
{{- $bindings = concat $bindings ((lookup "rbac.authorization.k8s.io/v1" "RoleBinding" "" "").items | default list) -}}
{{- end -}}
{{- if or (not $watched) .Values.operator.admissionPolicy.enabled -}}
{{- $bindings = concat $bindings ((lookup "rbac.authorization.k8s.io/v1" "ClusterRoleBinding" "" "").items | default list) -}}
{{- end -}}
{{- $own := printf "%s/%s" .Release.Namespace (include "mpesa-gateway.fullname" .) -}}
{{- $found := list -}}
{{- range $bindings -}}
{{- $labels := .metadata.labels | default dict -}}
{{- $name := printf "%s/%s" (get $labels "mpesa-gateway.dev/release-namespace") (trimSuffix "-operator-merchants" .metadata.name) -}}
{{- if not (hasKey .metadata "namespace") -}}
{{- $name = printf "%s/%s" (get $labels "mpesa-gateway.dev/release-namespace") (.metadata.name | trimPrefix (printf "%s-" (get $labels "mpesa-gateway.dev/release-namespace")) | trimSuffix "-operator-merchants") -}}
{{- end -}}
{{- if and (eq (get $labels "mpesa-gateway.dev/gateway") $.Values.operator.gateway) (ne $name $own) -}}
{{- $found = append $found $name -}}
{{- end -}}
{{- end -}}
{{- toYaml (uniq $found) -}}
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
