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
# library), and with --debian those of debian.sh.
set -euo pipefail
top=$(cd "$(dirname "$0")/../.." && pwd)
target=aarch64-unknown-linux-gnu

if [ "${1:-}" = --debian ]; then
  debian=${2:?usage: run.sh --debian FOLDER}
  shift 2
  exec "$top/tests/arm/debian.sh" "$debian" /checkout/tests/arm/run.sh "$@"
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
