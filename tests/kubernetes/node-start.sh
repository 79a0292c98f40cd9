#!/bin/bash
# The first process of a container that is a Kubernetes node: node-start.sh control|worker
#
# From the outside come: CONTROL, the address of the control plane's node; TOKEN, with which everybody is admin;
# INDEX, the node's number, which gives its pods their addresses; NODES, how many there are; PREFIX, the first three
# numbers of the nodes' own addresses; DNS, the address of the cluster's name service. Everything here listens on the
# container's network alone.
set -euo pipefail
role=$1
name=$(hostname)
log=/var/log/kubernetes
# Since 1.23 without being asked.
gates=GenericEphemeralVolume=true
mkdir -p "$log" /etc/kubernetes /etc/cni/net.d /run/kubernetes

# Volumes that the kubelet mounts must be seen by the containers that the engine starts.
mount --make-rshared /
# Sysctls and control groups are the node's own to write.
for point in /sys /proc/sys $(awk '$2 ~ "^/sys/fs/cgroup" { print $2 }' /proc/mounts); do
  mount -o remount,bind,rw "$point" 2> /dev/null || true
done
[ -e /dev/fuse ] || mknod /dev/fuse c 10 229
[ -e /dev/kmsg ] || mknod /dev/kmsg c 1 11

engine() {
  dockerd --exec-opt native.cgroupdriver=cgroupfs --bridge none --iptables=false --ip-masq=false \
    > "$log/dockerd.log" 2>&1 &
  until docker info > /dev/null 2>&1; do sleep 0.2; done
}

kubeconfig() {
  cat > /etc/kubernetes/config <<CONFIG
apiVersion: v1
kind: Config
clusters: [{ name: it, cluster: { server: "https://$CONTROL:6443", insecure-skip-tls-verify: true } }]
users: [{ name: it, user: { token: "$TOKEN" } }]
contexts: [{ name: it, context: { cluster: it, user: it } }]
current-context: it
CONFIG
}

control_plane() {
  openssl genrsa -out /etc/kubernetes/accounts.key 2048 2> /dev/null
  echo "$TOKEN,admin,admin,system:masters" > /etc/kubernetes/tokens
  etcd --data-dir /run/etcd --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380 > "$log/etcd.log" 2>&1 &
  kube-apiserver --etcd-servers http://127.0.0.1:2379 --advertise-address "$CONTROL" --secure-port 6443 \
    --cert-dir /run/kubernetes --token-auth-file /etc/kubernetes/tokens --authorization-mode Node,RBAC \
    --service-cluster-ip-range 10.96.0.0/16 --allow-privileged --feature-gates "$gates" \
    --service-account-issuer https://kubernetes.default.svc --service-account-key-file /etc/kubernetes/accounts.key \
    --service-account-signing-key-file /etc/kubernetes/accounts.key > "$log/apiserver.log" 2>&1 &
  until curl -skf "https://$CONTROL:6443/readyz" -H "Authorization: Bearer $TOKEN" > /dev/null; do sleep 0.2; done
  kube-controller-manager --kubeconfig /etc/kubernetes/config --service-account-private-key-file \
    /etc/kubernetes/accounts.key --use-service-account-credentials=false --leader-elect=false \
    --node-monitor-grace-period=20s --feature-gates "$gates" > "$log/controllers.log" 2>&1 &
  kube-scheduler --kubeconfig /etc/kubernetes/config --leader-elect=false --feature-gates "$gates" \
    > "$log/scheduler.log" 2>&1 &
}

# Each pod has an interface of its own to the node, and each packet is routed: so iptables sees all of them.
pod_network() {
  cat > /etc/cni/net.d/10-pods.conflist <<CNI
{ "cniVersion": "0.4.0", "name": "pods", "plugins": [
  { "type": "ptp", "ipMasq": false,
    "ipam": { "type": "host-local", "ranges": [[{ "subnet": "10.244.$INDEX.0/24" }]],
              "routes": [{ "dst": "0.0.0.0/0" }] } },
  { "type": "portmap", "capabilities": { "portMappings": true } } ] }
CNI
  sysctl -qw net.ipv4.ip_forward=1
  for other in $(seq "$NODES"); do
    [ "$other" = "$INDEX" ] || ip route add "10.244.$other.0/24" via "$PREFIX.$((other + 1))"
  done
  iptables -t nat -A POSTROUTING -s 10.244.0.0/16 ! -d 10.244.0.0/16 -j MASQUERADE
}

kubelet_and_proxy() {
  cat > /etc/kubernetes/kubelet <<KUBELET
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: { anonymous: { enabled: true }, webhook: { enabled: false } }
authorization: { mode: AlwaysAllow }
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
failSwapOn: false
clusterDNS: ["$DNS"]
clusterDomain: cluster.local
resolvConf: /etc/resolv.conf
nodeStatusUpdateFrequency: 4s
syncFrequency: 5s
KUBELET
  kubelet --config /etc/kubernetes/kubelet --kubeconfig /etc/kubernetes/config --hostname-override "$name" \
    --node-ip "$PREFIX.$((INDEX + 1))" --feature-gates "$gates" --network-plugin cni --cni-bin-dir /usr/lib/cni \
    --pod-infra-container-image llama-swarm-test/pause:local --oom-score-adj 0 > "$log/kubelet.log" 2>&1 &
  kube-proxy --kubeconfig /etc/kubernetes/config --hostname-override "$name" --proxy-mode iptables \
    --cluster-cidr 10.244.0.0/16 --conntrack-max-per-core 0 --oom-score-adj 0 > "$log/proxy.log" 2>&1 &
}

engine
kubeconfig
[ "$role" = worker ] || control_plane
until curl -skf "https://$CONTROL:6443/readyz" -H "Authorization: Bearer $TOKEN" > /dev/null; do sleep 0.2; done
pod_network
# The image that holds a pod's network is brought from outside.
until docker image inspect llama-swarm-test/pause:local > /dev/null 2>&1; do sleep 0.2; done
kubelet_and_proxy
# Who of them ends, ends the node.
wait -n
echo "a part of the node ended: see $log" >&2
exit 1
