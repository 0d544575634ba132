{{/* Rules that several policies share, as YAML lists. */}}

{{/* Pods of this release. Takes (dict "root" $ "components" (list "api")). */}}
{{- define "mpesa-gateway.peers" -}}
{{- range $component := .components }}
- podSelector:
    matchLabels:
      {{- include "mpesa-gateway.selectorLabels" (dict "root" $.root "component" $component) | nindent 6 }}
{{- end }}
{{- end -}}

{{- define "mpesa-gateway.policyMetadata" -}}
name: {{ include "mpesa-gateway.fullname" .root }}-{{ .component }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "mpesa-gateway.labels" . | nindent 2 }}
{{- end -}}

{{/* Who reads metrics: Prometheus, and the operator, which asks pods what they have loaded. */}}
{{- define "mpesa-gateway.metricsIngress" -}}
- ports:
    - port: metrics
  from:
    {{- include "mpesa-gateway.peers" (dict "root" . "components" (list "operator")) | nindent 4 }}
    {{- if .Values.networkPolicy.metricsFrom }}
    {{- toYaml .Values.networkPolicy.metricsFrom | nindent 4 }}
    {{- else }}
    - namespaceSelector: {}
    {{- end }}
{{- end -}}

{{- define "mpesa-gateway.dnsEgress" -}}
- ports:
    - port: 53
      protocol: UDP
    - port: 53
      protocol: TCP
  {{- with .Values.networkPolicy.dnsTo }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* Postgres, and Redis unless (dict … "redis" false). */}}
{{- define "mpesa-gateway.storesEgress" -}}
{{- $values := .root.Values -}}
{{- if $values.postgresql.enabled }}
- ports:
    - port: 5432
  to:
    {{- include "mpesa-gateway.peers" (dict "root" .root "components" (list "postgresql")) | nindent 4 }}
{{- end }}
{{- if and .redis $values.redis.enabled }}
- ports:
    - port: 6379
  to:
    {{- include "mpesa-gateway.peers" (dict "root" .root "components" (list "redis")) | nindent 4 }}
{{- end }}
{{- if not (and $values.postgresql.enabled $values.redis.enabled) }}
{{- if $values.networkPolicy.storesEgress }}
{{ toYaml $values.networkPolicy.storesEgress }}
{{- else }}
- ports:
    - port: 5432
    - port: 6379
{{- end }}
{{- end }}
{{- end -}}

{{/* The public internet and nothing else: the network's own wall behind the guard in the worker. */}}
{{- define "mpesa-gateway.publicEgress" -}}
- ports:
    {{- range .Values.networkPolicy.publicPorts }}
    - port: {{ int . }}
    {{- end }}
  to:
    - ipBlock:
        cidr: 0.0.0.0/0
        {{- with .Values.networkPolicy.deniedCIDRs }}
        except:
          {{- toYaml . | nindent 10 }}
        {{- end }}
    - ipBlock:
        cidr: 2000::/3
        {{- with .Values.networkPolicy.deniedCIDRs6 }}
        except:
          {{- toYaml . | nindent 10 }}
        {{- end }}
{{- end -}}

{{- define "mpesa-gateway.simulatorEgress" -}}
{{- if .Values.simulator.enabled }}
- ports:
    - port: 8080
  to:
    {{- include "mpesa-gateway.peers" (dict "root" . "components" (list "simulator")) | nindent 4 }}
{{- end }}
{{- end -}}
