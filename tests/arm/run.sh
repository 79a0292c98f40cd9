#!/usr/bin/env bash
# Compiles the engine for 64-bit Arm and runs its tests: run.sh [--debian FOLDER] [ARGUMENT OF cargo test ...]
#
# So NEON is held against plain Rust, bit for bit, on machines that have another processor; on an Arm machine the usual
# tests do that. `run.sh --lib kernels::` is the part that matters most.
# Needs the compiler's library for Arm (rustup target add aarch64-unknown-linux-gnu), and on Debian the packages
# gcc-aarch64-linux-gnu and qemu-user. What is missing is told with SKIPPED, and nothing runs.
# With --debian all of that comes from Debian's packages, and so does the compiler: FOLDER becomes a system of its own
# (root and debootstrap; 3 GB, and some minutes the first time), in which the tests are compiled and run.
# Variables: ARM_CC (aarch64-linux-gnu-gcc: links) · ARM_LIBRARIES (/usr/aarch64-linux-gnu: where lib/ has Arm's C
# library) · ARM_SUITE (sid: the Debian release of FOLDER) · MIRROR (the machine's own).
set -euo pipefail
top=$(cd "$(dirname "$0")/../.." && pwd)
target=aarch64-unknown-linux-gnu

# A system with a compiler for Arm. Debian's stable releases have a compiler that is too old.
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
    cargo rustc libstd-rust-dev:arm64 gcc gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user > "$1.log" 2>&1 ||
    { tail -n 20 "$1.log" >&2; return 1; }
  touch "$1/made"
}

if [ "${1:-}" = --debian ]; then
  debian=$(realpath --canonicalize-missing "${2:?usage: run.sh --debian FOLDER}")
  shift 2
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
      CARGO_TARGET_DIR=/target /checkout/tests/arm/run.sh "$@"
  ' sh "$debian" "$top" "$@"
fi

cc=${ARM_CC:-aarch64-linux-gnu-gcc}
libraries=${ARM_LIBRARIES:-/usr/aarch64-linux-gnu}
missing=()
command -v cargo > /dev/null || missing+=("cargo")
[ -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ] ||
  missing+=("Rust's library for Arm (rustup target add $target)")
command -v "$cc" > /dev/null || missing+=("$cc (or ARM_CC)")
command -v qemu-aarch64 > /dev/null || missing+=("qemu-aarch64")
[ -e "$libraries/lib/ld-linux-aarch64.so.1" ] || missing+=("$libraries/lib/ld-linux-aarch64.so.1 (or ARM_LIBRARIES)")
if [ ${#missing[@]} -gt 0 ]; then
  printf 'SKIPPED: NEON was NOT tested; missing: %s\n' "${missing[@]}"
  exit
fi

cd "$top"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=$cc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L $libraries"
# Apart from what is built for this machine, whose compiler may be another.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$top/target/arm}
exec cargo test --release --locked --target "$target" --package shard-engine "$@"
