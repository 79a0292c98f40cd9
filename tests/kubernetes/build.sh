#!/usr/bin/env bash
# Builds Kubernetes' programs from Debian's sources: build.sh FOLDER
#
# Debian ships kubectl alone, but its source package of 1.20 has all of Kubernetes in it, and what it needs.
# Needs root (it installs packages) and Debian 12; takes about 15 minutes with two cores.
set -euo pipefail
out=${1:?usage: build.sh FOLDER}
mkdir -p "$out"
out=$(realpath "$out")
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
chmod 755 "$work"

mirror=$("$(dirname "$0")/../../docker/debian-mirror.sh")
echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror bookworm main" > "$work/sources.list"
mkdir "$work/lists"
sources=(-o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=- -o "Dir::State::Lists=$work/lists"
  -o Dir::Cache::srcpkgcache= -o Dir::Cache::pkgcache= -o APT::Sandbox::User=root)

apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
  dpkg-dev gcc golang-go libc6-dev make rsync > /dev/null
apt-get "${sources[@]}" update -qq
(cd "$work" && apt-get "${sources[@]}" source -qq kubernetes > /dev/null)
cd "$work"/kubernetes-*/

mkdir -p .go/src/k8s.io
ln -s ../../.. .go/src/k8s.io/kubernetes
programs=(kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy)
GOPATH=$PWD/.go GOCACHE=$work/cache CGO_ENABLED=0 make WHAT="${programs[*]/#/cmd/}" >&2
cp "${programs[@]/#/_output/bin/}" "$out"
gcc -Os -static -o "$out/pause" build/pause/linux/pause.c
