{{/* Names, labels and the parts that the controller, its CronJob and its test share. */}}

{{- define "kamino-wf.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Cut so that what is put after it fits into 63. */}}
{{- define "kamino-wf.fullname" -}}
{{- $name := include "kamino-wf.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "kamino-wf.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "kamino-wf.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "kamino-wf.claimName" -}}
{{- default (include "kamino-wf.fullname" .) .Values.persistence.existingClaim -}}
{{- end -}}

{{/* Cluster-wide objects carry the namespace in their name: two installations must not share them. */}}
{{- define "kamino-wf.clusterName" -}}
{{- printf "%s.%s" (include "kamino-wf.fullname" .) .Release.Namespace -}}
{{- end -}}

{{/* `kubectl kamino` finds the controller by the first of them, so no override changes it. */}}
{{- define "kamino-wf.selector" -}}
app.kubernetes.io/name: kamino-wf
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "kamino-wf.labels" -}}
{{ include "kamino-wf.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "kamino-wf.image" -}}
{{- $repository := required "image.repository is not set: no image is published yet; build one (Dockerfile) and push it to a registry of yours" .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "kamino-wf.cleaningImage" -}}
{{- .Values.cleaning.image | default (include "kamino-wf.image" .) -}}
{{- end -}}

{{/* Repositories of images that may clean, as a list in JSON. Without digest and tag: a run that began before an upgrade goes on with
the image that it began with. */}}
{{- define "kamino-wf.repositories" -}}
{{- $repositories := list -}}
{{- range prepend .Values.admissionPolicy.extraRepositories (include "kamino-wf.cleaningImage" .) -}}
{{- $repositories = append $repositories (regexReplaceAll ":[^:/]*$" (regexReplaceAll "@.*$" . "") "") -}}
{{- end -}}
{{- toJson $repositories -}}
{{- end -}}

{{/* What the settings file says of who we are in Azure. A value that the credential does not take is a mistake, as in the file itself. */}}
{{- define "kamino-wf.azure" -}}
{{- $azure := dict -}}
{{- with .Values.azure -}}
{{- if eq .credential "azure-cli" -}}
{{- fail "azure.credential is azure-cli: that is a person's login on their own machine, and the image has no az; set workload-identity, managed-identity, client-secret or azure-json" -}}
{{- end -}}
{{- $takes := dict "workload-identity" (list "clientId" "tenantId" "projectToken") "managed-identity" (list "clientId" "identity") "client-secret" (list "clientId" "tenantId" "existingSecret") "azure-json" (list "existingSecret" "acceptNodeSecret") -}}
{{- range $name := list "clientId" "tenantId" "projectToken" "identity" "existingSecret" "acceptNodeSecret" -}}
{{- if and $.Values.azure.credential (index $.Values.azure $name) (not (has $name (index $takes $.Values.azure.credential))) -}}
{{- fail (printf "azure.%s is set, and azure.credential is %s, which takes no such value: leave it out" $name $.Values.azure.credential) -}}
{{- end -}}
{{- end -}}
{{- if .credential -}}{{- $_ := set $azure "credential" .credential -}}{{- end -}}
{{- if has .credential (list "workload-identity" "client-secret") -}}
{{- if .tenantId -}}{{- $_ := set $azure "tenant" .tenantId -}}{{- end -}}
{{- $_ := set $azure "client" (required (printf "azure.clientId is not set: %s needs the client id of the identity that kamino-wf is in Azure" .credential) .clientId) -}}
{{- end -}}
{{- if eq .credential "client-secret" -}}
{{- $_ := required "azure.existingSecret is not set: the Secret that holds the client secret" .existingSecret -}}
{{- $_ := required "azure.tenantId is not set: client-secret needs it" .tenantId -}}
{{- $_ := set $azure "secretFile" "/etc/kamino-wf-secret/client-secret" -}}
{{- else if eq .credential "managed-identity" -}}
{{- if and .clientId .identity -}}
{{- fail "azure.clientId and azure.identity both name an identity: leave one of them out" -}}
{{- end -}}
{{- if .clientId -}}{{- $_ := set $azure "client" .clientId -}}{{- end -}}
{{- if .identity -}}{{- $_ := set $azure "identity" .identity -}}{{- end -}}
{{- else if eq .credential "azure-json" -}}
{{- $_ := set $azure "azureJson" "/etc/kubernetes/azure.json" -}}
{{- if .acceptNodeSecret -}}{{- $_ := set $azure "acceptNodeSecret" true -}}{{- end -}}
{{- else if and .credential .projectToken -}}
{{- $_ := required "azure.tenantId is not set: azure.projectToken needs it" .tenantId -}}
{{- $_ := set $azure "tokenFile" "/var/run/secrets/azure/tokens/azure-identity-token" -}}
{{- end -}}
{{- end -}}
{{- toYaml $azure -}}
{{- end -}}

{{/* The settings file: what the user says, and what the chart knows. */}}
{{- define "kamino-wf.config" -}}
{{- range .Values.config.pools -}}
{{- if and (eq (default "live" .capture) "stop") (not $.Values.capture.stop) -}}
{{- fail (printf "config.pools: pool %s says capture: stop, and capture.stop is false: set it to true, which lets the controller cordon, drain, stop and start nodes" .name) -}}
{{- end -}}
{{- end -}}
{{- range .Values.config.pools -}}
{{- if and (eq (default "keep" .credential) "rebootstrap") (not (and $.Values.capture.stop $.Values.capture.rebootstrap)) -}}
{{- fail (printf "config.pools: pool %s says credential: rebootstrap, and capture.rebootstrap is false: set it to true, which lets donors ask for a new credential" .name) -}}
{{- end -}}
{{- end -}}
{{- if .Values.config.cleaning -}}
{{- fail "config.cleaning is filled in by the chart: set cleaning.namespace and cleaning.image instead" -}}
{{- end -}}
{{- if .Values.config.store -}}
{{- fail "config.store is filled in by the chart: the volume is mounted at /var/lib/kamino-wf" -}}
{{- end -}}
{{- $azure := include "kamino-wf.azure" . | fromYaml -}}
{{- $known := dict "cleaning" (dict "namespace" .Values.cleaning.namespace "image" (include "kamino-wf.cleaningImage" .)) -}}
{{- if eq .Values.cleaning.attach "instance" -}}
{{- $_ := set $known.cleaning "attach" "instance" -}}
{{- with .Values.cleaning.lunPath -}}{{- $_ := set $known.cleaning "lunPath" . -}}{{- end -}}
{{- else if .Values.cleaning.lunPath -}}
{{- fail "cleaning.lunPath is set, and cleaning.attach is csi, which looks for no path: leave it out, or set cleaning.attach to instance" -}}
{{- end -}}
{{- if $azure -}}{{- $_ := set $known "azure" $azure -}}{{- end -}}
{{- toYaml (mergeOverwrite $known (deepCopy .Values.config)) -}}
{{- end -}}

{{/* The port of `serve.listen`. */}}
{{- define "kamino-wf.port" -}}
{{- $serve := default dict .Values.config.serve -}}
{{- default "0.0.0.0:8080" $serve.listen | regexFind "[0-9]+$" -}}
{{- end -}}

{{/* Annotations and labels of every pod that speaks with Azure or the API server. Takes the context and the component. */}}
{{- define "kamino-wf.podMetadata" -}}
{{- $ := .context -}}
annotations:
  checksum/config: {{ printf "%s%s" (include "kamino-wf.config" $) (toYaml $.Values.profiles) | sha256sum }}
  cluster-autoscaler.kubernetes.io/safe-to-evict: "true"
  {{- with $.Values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
labels:
  {{- include "kamino-wf.labels" $ | nindent 2 }}
  app.kubernetes.io/component: {{ .component }}
  {{- if and (eq $.Values.azure.credential "workload-identity") (not $.Values.azure.projectToken) }}
  azure.workload.identity/use: "true"
  {{- end }}
  {{- with $.Values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* What a pod is besides its containers and volumes. */}}
{{- define "kamino-wf.podSpec" -}}
serviceAccountName: {{ include "kamino-wf.serviceAccountName" . }}
automountServiceAccountToken: true
# A Service whose name begins with `kamino` would put KAMINO_… variables into the pod, and the binary refuses those it doesn't know.
enableServiceLinks: false
terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
{{- if not (kindIs "invalid" .Values.hostUsers) }}
hostUsers: {{ .Values.hostUsers }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* What a container is besides its arguments, probes and store. */}}
{{- define "kamino-wf.container" -}}
image: {{ include "kamino-wf.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  capabilities:
    drop: [ALL]
{{- with .Values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "kamino-wf.env" -}}
- name: KAMINO_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: KAMINO_POD
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: KAMINO_NODE
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
- name: KAMINO_LOG_FORMAT
  value: {{ .Values.log.format }}
- name: KAMINO_LOG
  value: {{ .Values.log.level | quote }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "kamino-wf.volumeMounts" -}}
- name: config
  mountPath: /etc/kamino-wf
  readOnly: true
{{- if eq .Values.azure.credential "client-secret" }}
- name: client-secret
  mountPath: /etc/kamino-wf-secret
  readOnly: true
{{- else if eq .Values.azure.credential "azure-json" }}
- name: azure-json
  # From the host it is the one file: its folder has the node's keys.
  mountPath: {{ ternary "/etc/kubernetes" "/etc/kubernetes/azure.json" (not (empty .Values.azure.existingSecret)) }}
  readOnly: true
{{- else if and .Values.azure.credential .Values.azure.projectToken }}
- name: azure-identity-token
  mountPath: /var/run/secrets/azure/tokens
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "kamino-wf.volumes" -}}
- name: config
  configMap:
    name: {{ include "kamino-wf.fullname" . }}
{{- if eq .Values.azure.credential "client-secret" }}
- name: client-secret
  secret:
    secretName: {{ .Values.azure.existingSecret }}
    defaultMode: 0440
    items:
      - key: {{ .Values.azure.existingSecretKey | default "client-secret" }}
        path: client-secret
{{- else if and (eq .Values.azure.credential "azure-json") .Values.azure.existingSecret }}
- name: azure-json
  secret:
    secretName: {{ .Values.azure.existingSecret }}
    defaultMode: 0440
    items:
      - key: {{ .Values.azure.existingSecretKey | default "azure.json" }}
        path: azure.json
{{- else if eq .Values.azure.credential "azure-json" }}
- name: azure-json
  hostPath:
    path: {{ .Values.azure.azureJson }}
    type: File
{{- else if and .Values.azure.credential .Values.azure.projectToken }}
- name: azure-identity-token
  projected:
    defaultMode: 0440
    sources:
      - serviceAccountToken:
          path: azure-identity-token
          audience: api://AzureADTokenExchange
          expirationSeconds: 3600
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Whether to make ValidatingAdmissionPolicies. Rendered without a server, only its version is known. */}}
{{- define "kamino-wf.admission" -}}
{{- $has := or (.Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy") (semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version) -}}
{{- if or (eq .Values.admissionPolicy.mode "always") (and (eq .Values.admissionPolicy.mode "auto") $has) -}}true{{- end -}}
{{- end -}}
