{{/*
What the gateway refuses under production rules, as far as a template can see it. The rules are those
of src/mpesa_gateway/domain/production.py; tests/chart/test_production_rules.py compares the two.
*/}}

{{/*
Whether these addresses and CIDRs together are more than a /8, or of IPv6 more than a /32: "true",
"false", or the first entry that is neither address nor CIDR. Overlaps count once. IPv6 is counted
in /62, because 64 bits do not fit a template's numbers; IPv4 inside IPv6 is IPv4.
*/}}
{{- define "mpesa-gateway.isTooWide" -}}
{{- $v4 := list -}}
{{- $v6 := list -}}
{{- $unreadable := "" -}}
{{- range . -}}
{{- $entry := . | toString | trim | lower -}}
{{- $range := include "mpesa-gateway.range" $entry -}}
{{- if not $range -}}
{{- $unreadable = $unreadable | default $entry -}}
{{- else if hasPrefix "4" $range -}}
{{- $v4 = append $v4 (trimPrefix "4 " $range) -}}
{{- else -}}
{{- $v6 = append $v6 (trimPrefix "6 " $range) -}}
{{- end -}}
{{- end -}}
{{- if $unreadable -}}
{{- $unreadable -}}
{{- else -}}
{{- $wide4 := gt (include "mpesa-gateway.covered" $v4 | int64) 16777216 -}}
{{- $wide6 := gt (include "mpesa-gateway.covered" $v6 | int64) 1073741824 -}}
{{- or $wide4 $wide6 -}}
{{- end -}}
{{- end -}}

{{/* How much is in a list of "start size", each start with as many digits as the others. */}}
{{- define "mpesa-gateway.covered" -}}
{{- $total := 0 -}}
{{- $end := 0 -}}
{{- range (sortAlpha .) -}}
{{- $start := splitList " " . | first | regexFind "[1-9][0-9]*$" | default "0" | int64 -}}
{{- $stop := add $start (regexFind "[0-9]+$" . | int64) -}}
{{- $from := max $start $end -}}
{{- if gt $stop $from -}}
{{- $total = add $total (sub $stop $from) -}}
{{- end -}}
{{- $end = max $end $stop -}}
{{- end -}}
{{- $total -}}
{{- end -}}

{{/* "4 start size" or "6 start size" of an address or CIDR; nothing when it is neither. */}}
{{- define "mpesa-gateway.range" -}}
{{- $octet := `(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])` -}}
{{- $dotted := printf `(%s\.){3}%s` $octet $octet -}}
{{- $address := regexReplaceAll "/.*$" . "" -}}
{{- $bits := regexFind "/.*$" . | trimPrefix "/" -}}
{{- if regexMatch (printf `^%s(/(3[0-2]|[12]?[0-9]))?$` $dotted) . -}}
{{- $n := splitList "." $address -}}
{{- $start := add (mul (index $n 0 | int64) 16777216) (mul (index $n 1 | int64) 65536) (mul (index $n 2 | int64) 256) (index $n 3 | int64) -}}
{{- include "mpesa-gateway.v4Range" (list $start ($bits | default "32" | int)) -}}
{{- else if and (contains ":" $address) (regexMatch `^(12[0-8]|1[01][0-9]|[1-9]?[0-9])?$` $bits) -}}
{{- $tail := regexFind (printf `:%s$` $dotted) $address | trimPrefix ":" -}}
{{- if $tail -}}
{{- $n := splitList "." $tail -}}
{{- $hex := printf "%x:%x" (add (mul (index $n 0 | int) 256) (index $n 1 | int)) (add (mul (index $n 2 | int) 256) (index $n 3 | int)) -}}
{{- $address = printf "%s%s" (trimSuffix $tail $address) $hex -}}
{{- end -}}
{{- $halves := splitList "::" $address -}}
{{- $groups := without (splitList ":" (index $halves 0)) "" -}}
{{- $isWhole := regexMatch `^([0-9a-f]{1,4}(:[0-9a-f]{1,4})*)?(::([0-9a-f]{1,4}(:[0-9a-f]{1,4})*)?)?$` $address -}}
{{- if eq (len $halves) 2 -}}
{{- $last := without (splitList ":" (index $halves 1)) "" -}}
{{- $isWhole = and $isWhole (lt (add (len $groups) (len $last)) 8) -}}
{{- range untilStep (add (len $groups) (len $last) | int) 8 1 -}}
{{- $groups = append $groups "0" -}}
{{- end -}}
{{- $groups = concat $groups $last -}}
{{- end -}}
{{- if and $isWhole (eq (len $groups) 8) -}}
{{- $n := list -}}
{{- range $groups -}}
{{- $n = append $n (printf "0x%s" . | int64) -}}
{{- end -}}
{{- $bits = $bits | default "128" | int -}}
{{- $isMapped := and (eq (join ":" (slice $n 0 6)) "0:0:0:0:0:65535") (ge $bits 96) -}}
{{- if $isMapped -}}
{{- include "mpesa-gateway.v4Range" (list (add (mul (index $n 6) 65536) (index $n 7)) (sub $bits 96 | int)) -}}
{{- else -}}
{{- $start := add (mul (index $n 0) 70368744177664) (mul (index $n 1) 1073741824) (mul (index $n 2) 16384) (div (index $n 3) 4) -}}
{{- $size := include "mpesa-gateway.power" (max 0 (sub 62 $bits)) | int64 -}}
{{- printf "6 %020d %d" (sub $start (mod $start $size)) $size -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "mpesa-gateway.v4Range" -}}
{{- $size := include "mpesa-gateway.power" (sub 32 (index . 1)) | int64 -}}
{{- $start := index . 0 -}}
{{- printf "4 %020d %d" (sub $start (mod $start $size)) $size -}}
{{- end -}}

{{/* Two to the power of a number. */}}
{{- define "mpesa-gateway.power" -}}
{{- $result := 1 -}}
{{- range until (. | int) -}}
{{- $result = mul $result 2 -}}
{{- end -}}
{{- $result -}}
{{- end -}}

{{- define "mpesa-gateway.refusedWords" -}}
mpesa m-pesa safaricom exe exec cmd sql query
{{- end -}}

{{- define "mpesa-gateway.tunnelWords" -}}
localtunnel mockbin ngrok requestbin
{{- end -}}

{{- define "mpesa-gateway.tunnelDomains" -}}
app.github.dev beeceptor.com bore.pub devtunnels.ms expose.dev gitpod.io hkdk.events hookbin.com hookdeck.com lhr.life
lhr.pro lhr.rocks loca.lt localhost.run localhostrun.com localtunnel.me loclx.io mockbin.com mockbin.io mockbin.org
ngrok-free.app ngrok-free.dev ngrok.app ngrok.com ngrok.dev ngrok.io packetriot.net pagekite.me pinggy.io pinggy.link
pinggy.online pipedream.net playit.gg requestbin.com requestbin.net requestcatcher.com serveo.net
serveousercontent.com sharedwithexpose.com smee.io telebit.cloud telebit.io trycloudflare.com ts.net tunnelmole.net
webhook.site zrok.io
{{- end -}}

{{- define "mpesa-gateway.localSuffixes" -}}
localhost local internal intranet lan home corp private home.arpa svc cluster.local arpa onion test invalid
{{- end -}}

{{/* Why Safaricom would not, or should not, call this URL; nothing when it may. */}}
{{- define "mpesa-gateway.callbackUrlProblem" -}}
{{- $url := . -}}
{{- $netloc := regexReplaceAll `[/?#].*$` (trimPrefix "https://" $url) "" -}}
{{- $host := regexReplaceAll `:[0-9]*$` $netloc "" | lower | trimSuffix "." -}}
{{- $words := list -}}
{{- range (splitList " " (include "mpesa-gateway.refusedWords" .)) -}}
{{- if contains . (lower $url) -}}{{- $words = append $words . -}}{{- end -}}
{{- end -}}
{{- $isTunnel := false -}}
{{- range (regexSplit `\s+` (include "mpesa-gateway.tunnelDomains" .) -1) -}}
{{- if or (eq $host .) (hasSuffix (printf ".%s" .) $host) -}}{{- $isTunnel = true -}}{{- end -}}
{{- end -}}
{{- range (splitList " " (include "mpesa-gateway.tunnelWords" .)) -}}
{{- if contains . $host -}}{{- $isTunnel = true -}}{{- end -}}
{{- end -}}
{{- $isLocal := not (contains "." $host) -}}
{{- range (splitList " " (include "mpesa-gateway.localSuffixes" .)) -}}
{{- if hasSuffix (printf ".%s" .) $host -}}{{- $isLocal = true -}}{{- end -}}
{{- end -}}
{{- if regexMatch `(^|\.)svc(\.|$)` $host -}}{{- $isLocal = true -}}{{- end -}}
{{- $v4 := `^(0|10|127|22[4-9]|2[34][0-9]|25[0-5]|100\.(6[4-9]|[7-9][0-9]|1[01][0-9]|12[0-7])|169\.254|172\.(1[6-9]|2[0-9]|3[01])|192\.168|198\.1[89])\.` -}}
{{- if regexMatch `(^|\.)([0-9]+|0x[0-9a-f]*)$` $host -}}
{{- $isPlain := hasPrefix "4" (include "mpesa-gateway.range" $host) -}}
{{- $isLocal = or (not $isPlain) (contains "/" $host) (regexMatch $v4 $host) -}}
{{- else if hasPrefix "[" $host -}}
{{- $isLocal = not (regexMatch `^\[[23][0-9a-f]{3}:[0-9a-f:.]*\]$` $host) -}}
{{- end -}}
{{- if not (hasPrefix "https://" $url) -}}
is not https in production: Safaricom calls only over https.
{{- else if or (not (regexMatch `^[!-~]+$` $url)) (contains "@" $netloc) (contains "\\" $url) (contains "#" $url) -}}
cannot be called by Safaricom: it has a user name, a fragment, or characters that are not printable ASCII.
{{- else if $isLocal -}}
cannot be called by Safaricom: its host is not a public name or address.
{{- else if ne $netloc (lower $netloc) -}}
has a host that is not in lower case: Safaricom has refused such URLs.
{{- else if $words -}}
contains {{ join ", " $words }}: Safaricom refuses such URLs; choose another host or path.
{{- else if $isTunnel -}}
is a tunnel or a request bin: somebody else could read and answer callbacks.
{{- end -}}
{{- end -}}
