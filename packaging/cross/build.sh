#!/usr/bin/env bash
# Builds the programs of a release for 64-bit Arm Linux on a machine of another kind: build.sh FOLDER OUT
#
# FOLDER becomes a system of Debian's with the compiler (debian.sh beside this; root, debootstrap, 4 GB); the linker is
# zig's, from PyPI, because it knows the C library of every age: the programs want glibc 2.28 or newer and nothing else.
# The programs go to OUT, with `notices`, which runs here. Then:
#
#   .ci/release --target aarch64-unknown-linux-gnu --bin-dir OUT --pages-from target/release/llama-swarm
#
# Needs what debian.sh needs, Rust, and Python 3 with venv.
set -euo pipefail
cd "$(dirname "$0")/../.."
debian=$(realpath --canonicalize-missing "${1:?usage: build.sh FOLDER OUT}")
out=${2:?usage: build.sh FOLDER OUT}
target=aarch64-unknown-linux-gnu glibc=2.28
programs=(llama-swarm shard-worker rendezvous gateway)

packaging/cross/debian.sh "$debian" true
if [ ! -e "$debian/opt/zig/installed" ]; then
  rm -rf "$debian/opt/zig"
  python3 -m venv "$debian/opt/zig"
  "$debian/opt/zig/bin/pip" install --quiet --requirement packaging/cross/requirements.txt
  touch "$debian/opt/zig/installed"
fi
# It runs in the other system, whose Python is none or another.
zig=$(cd "$debian" && echo opt/zig/lib/python3*/site-packages/ziglang/zig)

cargo build --release --locked -p notices
packaging/cross/debian.sh "$debian" env "CARGO_ZIGBUILD_ZIG_PATH=/$zig" CARGO_INCREMENTAL=0 \
  "RUSTFLAGS=--remap-path-prefix=/checkout=/llama-swarm --remap-path-prefix=/cargo-home=/cargo" \
  /opt/zig/bin/cargo-zigbuild zigbuild --manifest-path /checkout/Cargo.toml --release --locked \
  --target "$target.$glibc" "${programs[@]/#/--package=}"
mkdir -p "$out"
for program in "${programs[@]}"; do cp "$debian/target/$target/release/$program" "$out"; done
cp target/release/notices "$out"
ls -l "$out"
