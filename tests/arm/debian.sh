#!/usr/bin/env bash
# Runs a command in a system of Debian's that can compile for 64-bit Arm: debian.sh FOLDER COMMAND ...
#
# FOLDER becomes that system (root and debootstrap; 3 GB, and some minutes the first time). The command finds these
# sources in /checkout, cargo's downloads in /cargo-home and its builds in /target.
# Variables: ARM_SUITE (sid: the Debian release of FOLDER) · MIRROR (the machine's own).
set -euo pipefail
top=$(cd "$(dirname "$0")/../.." && pwd)
debian=$(realpath --canonicalize-missing "${1:?usage: debian.sh FOLDER COMMAND ...}")
shift
: "${1:?usage: debian.sh FOLDER COMMAND ...}"

# Debian's stable releases have a compiler that is too old.
make_debian() {
  local suite=${ARM_SUITE:-sid} mirror=${MIRROR:-$("$top/docker/debian-mirror.sh")}
  echo "making $1: a system of Debian's with a compiler for Arm"
  mkdir -p "$1"
  debootstrap --variant=minbase --include=ca-certificates "$suite" "$1" "$mirror" \
    /usr/share/debootstrap/scripts/sid > "$1.log" 2>&1 || { tail -n 20 "$1.log" >&2; return 1; }
  # A mirror may lag behind.
  echo 'Acquire::Check-Valid-Until "false";' > "$1/etc/apt/apt.conf.d/lagging-mirror"
  # The machine's own, which may trust a proxy.
  [ ! -e /etc/ssl/certs/ca-certificates.crt ] || cp -L /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/"
  cp -L /etc/resolv.conf "$1/etc/resolv.conf"
  chroot "$1" dpkg --add-architecture arm64
  chroot "$1" apt-get update -qq
  chroot "$1" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    cargo rustc libstd-rust-dev:arm64 gcc gcc-aarch64-linux-gnu libc6-dev-arm64-cross make qemu-user > "$1.log" 2>&1 ||
    { tail -n 20 "$1.log" >&2; return 1; }
  touch "$1/made"
}

[ -e "$debian/made" ] || make_debian "$debian"
mkdir -p "$debian/checkout"
# Nobody else sees what is mounted, and nothing of it is left behind.
# shellcheck disable=SC2016
exec unshare --mount sh -ec '
  debian=$1 top=$2
  shift 2
  mount --bind "$top" "$debian/checkout"
  mount -t proc proc "$debian/proc"
  mount --bind /dev "$debian/dev"
  exec chroot "$debian" env --ignore-environment PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root CARGO_HOME=/cargo-home \
    CARGO_TARGET_DIR=/target "$@"
' sh "$debian" "$top" "$@"
