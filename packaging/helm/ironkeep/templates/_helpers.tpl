{{- define "ironkeep.labels" -}}
app.kubernetes.io/name: ironkeep
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "ironkeep.name" -}}
{{ .Release.Name | trunc 50 }}-ironkeep
{{- end }}

{{- define "ironkeep.secret" -}}
{{ .Values.auth.existingSecret | default (include "ironkeep.name" .) }}
{{- end }}

{{- /* What a probe asks to know whether commands are served. */ -}}
{{- define "ironkeep.isReady" -}}
{{- if .Values.http.enabled -}}
httpGet:
  path: /readyz
  port: http
  httpHeaders: [{name: Authorization, value: {{ printf "Bearer %s" .Values.http.token | quote }}}]
{{- else -}}
exec: {command: [/usr/bin/ironkeep, ping]}
{{- end -}}
{{- end -}}
