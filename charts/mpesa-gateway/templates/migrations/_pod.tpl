{{/* The Job's pod template; the Job is named by its hash, because a Job cannot be changed. */}}
{{- define "mpesa-gateway.migrations.template" -}}
{{- $values := .Values.migrations -}}
metadata:
  labels:
    {{- include "mpesa-gateway.podLabels" (dict "root" $ "component" "migrate") | nindent 4 }}
    {{- with $values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  # Not OnFailure: when the Job has given up, its last pod and log are still there.
  restartPolicy: Never
  automountServiceAccountToken: false
  serviceAccountName: {{ include "mpesa-gateway.serviceAccountName" . }}
  securityContext:
    {{- include "mpesa-gateway.podSecurityContext" (dict "root" $) | nindent 4 }}
  {{- include "mpesa-gateway.scheduling" (dict "root" $ "component" "migrate" "values" $values) | nindent 2 }}
  containers:
    - name: migrate
      image: {{ include "mpesa-gateway.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [migrate]
      env:
        {{- include "mpesa-gateway.env" (dict "root" . "env" (include "mpesa-gateway.env.database" .) "extra" $values.extraEnv) | nindent 8 }}
      securityContext:
        {{- toYaml .Values.containerSecurityContext | nindent 8 }}
      resources:
        {{- toYaml $values.resources | nindent 8 }}
      volumeMounts:
        - name: tmp
          mountPath: /tmp
        {{- include "mpesa-gateway.extra" (dict "root" $ "items" $values.extraVolumeMounts) | nindent 8 }}
  volumes:
    - name: tmp
      emptyDir: {}
    {{- include "mpesa-gateway.extra" (dict "root" $ "items" $values.extraVolumes) | nindent 4 }}
{{- end -}}
