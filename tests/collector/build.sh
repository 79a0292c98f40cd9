#!/usr/bin/env bash
# Builds the OpenTelemetry Collector from Debian's packages of its sources: build.sh FOLDER
#
# Leaves `otelcol` in the folder, linked to nothing, with the parts that main.go names. For machines that reach Debian's
# mirrors, but neither an image registry nor the Collector's releases.
# Needs root and debootstrap; 3 GB for a moment, and about 4 minutes with two cores.
# Variables: COLLECTOR_SUITE (forky: the Debian release with the sources) · MIRROR (the machine's own).
set -euo pipefail
out=${1:?usage: build.sh FOLDER}
mkdir -p "$out"
suite=${COLLECTOR_SUITE:-forky}
package=golang-opentelemetry-collector-dev
work=$(mktemp -d)
# Not what debootstrap mounts there, in case it is broken off.
trap 'rm -rf --one-file-system "$work" "$work.log"' EXIT

mirror=${MIRROR:-$("$(dirname "$0")/../../docker/debian-mirror.sh")}
# All of Debian's later releases are made like this one, whose name debootstrap knows from the start.
debootstrap --variant=minbase --include="golang-go,$package" "$suite" "$work" "$mirror" \
  /usr/share/debootstrap/scripts/sid > "$work.log" 2>&1 || { tail -n 20 "$work.log" >&2; exit 1; }
version=$(chroot "$work" dpkg-query --show --showformat '${source:Upstream-Version}' "$package")

mkdir "$work/build"
cp "$(dirname "$0")/main.go" "$work/build"
mkdir -p "$work/build/.config/go/telemetry"
echo off > "$work/build/.config/go/telemetry/mode"
# Without /proc the toolchain does not find itself; Debian's packages of sources are made for GOPATH.
chroot "$work" env --ignore-environment PATH=/usr/bin HOME=/build GOROOT=/usr/lib/go GOCACHE=/build/cache \
  GOPATH=/usr/share/gocode GO111MODULE=off GOTOOLCHAIN=local CGO_ENABLED=0 \
  go build -trimpath -ldflags "-s -w -X main.version=$version" -o /build/otelcol /build/main.go
"$work/build/otelcol" --version
cp "$work/build/otelcol" "$out"
