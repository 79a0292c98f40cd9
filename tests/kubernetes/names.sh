#!/bin/bash
# The cluster's name service in a pod: dnsmasq, told every second what the API server knows of services. Headless
# services give their pods' addresses and a name for each pod, the others their own address.
set -euo pipefail
folder=/run/names
mkdir -p "$folder"
domain=svc.cluster.local
# Line by line: address, name. A pod is ready, or its service says that it does not matter; the API server sorts that.
endpoints='{{range .items}}{{$ns := .metadata.namespace}}{{$svc := .metadata.name}}{{range .subsets}}{{range .addresses}}
{{.ip}} {{$svc}}.{{$ns}}.DOMAIN{{if .hostname}} {{.hostname}}.{{$svc}}.{{$ns}}.DOMAIN{{end}}{{end}}{{end}}{{end}}'
services='{{range .items}}{{if and .spec.clusterIP (ne .spec.clusterIP "None")}}
{{.spec.clusterIP}} {{.metadata.name}}.{{.metadata.namespace}}.DOMAIN{{end}}{{end}}'

ask() { kubectl --kubeconfig /etc/kubernetes/config get "$@" --all-namespaces -o go-template="$template"; echo; }

headless() { kubectl --kubeconfig /etc/kubernetes/config get services --all-namespaces \
  -o 'jsonpath={range .items[?(@.spec.clusterIP=="None")]}{.metadata.name}.{.metadata.namespace}.{end}'; }

tell() {
  {
    template=${services//DOMAIN/$domain} ask services
    # Services with an address of their own have endpoints too, and those are not for names.
    heads=$(headless)
    template=${endpoints//DOMAIN/$domain} ask endpoints | while read -r address name rest; do
      [ -n "$name" ] || continue
      case ".$heads" in *".${name%".$domain"}."*) echo "$address $name $rest" ;; esac
    done
  } | sed '/^$/d' | sort > /tmp/new
  cmp -s /tmp/new "$folder/all" || { cp /tmp/new "$folder/.next"; mv "$folder/.next" "$folder/all"; kill -HUP "$server"; }
}

touch "$folder/all"
dnsmasq --keep-in-foreground --no-resolv --no-hosts --addn-hosts "$folder/all" --local "/cluster.local/" \
  --user=root --log-facility=- &
server=$!
while kill -0 "$server"; do tell || true; sleep 1; done
