#!/usr/bin/env bash
# Compiles a release's programs for another system than this one, for `.ci/release --bin-dir`:
#
#   packaging/cross.sh [--debian FOLDER] TARGET OUT
#
# TARGET is
#   aarch64-unknown-linux-gnu  with Zig as compiler of the C parts and as linker, for the C library of Debian 10 or newer.
#                              Needs cargo-zigbuild and zig.
#   x86_64-pc-windows-gnu      with MinGW. Needs x86_64-w64-mingw32-gcc and nasm.
# and needs Rust with its library (rustup target add TARGET). With --debian all of that comes from Debian's packages and
# PyPI, the library for Windows as sources, and goes into FOLDER, which becomes a system of its own (root and
# debootstrap; 5 GB with what is compiled).
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
usage='usage: cross.sh [--debian FOLDER] TARGET OUT'
programs=(llama-swarm shard-worker rendezvous gateway)

debian=''
if [ "${1:-}" = --debian ]; then
  debian=$(realpath --canonicalize-missing "${2:?$usage}")
  shift 2
fi
target=${1:?$usage} out=${2:?$usage}

case $target in
  aarch64-unknown-linux-gnu) cargo=(cargo-zigbuild zigbuild) for=$target.2.28 suffix='' ;;
  x86_64-pc-windows-gnu) cargo=(cargo build) for=$target suffix=.exe ;;
  *) echo "$usage; it knows nothing of $target" >&2; exit 2 ;;
esac
build=("${cargo[@]}" --release --locked --target "$for")
for program in "${programs[@]}"; do build+=("--package=$program"); done

# settings SOURCES CARGO_HOME: variables for cargo. Names of this machine's folders would make the binaries of every
# machine others. Arm's kernels have pages of 4, 16 or 64 KiB, and jemalloc works where they are no larger than it was
# made for.
settings() {
  local flags="-ffile-prefix-map=$1=/llama-swarm -ffile-prefix-map=$2=/cargo"
  printf '%s\n' CARGO_INCREMENTAL=0 JEMALLOC_SYS_WITH_LG_PAGE=16 "CFLAGS=$flags" "CXXFLAGS=$flags" \
    "RUSTFLAGS=--remap-path-prefix=$1=/llama-swarm --remap-path-prefix=$2=/cargo"
}

# in_debian COMMAND ...
in_debian() { "$top/tests/arm/debian.sh" "$debian" "$@"; }

if [ -z "$debian" ]; then
  cd "$top"
  mapfile -t settings < <(settings "$top" "${CARGO_HOME:-$HOME/.cargo}")
  env "${settings[@]}" "${build[@]}"
  built=${CARGO_TARGET_DIR:-$top/target}/$target/release
else
  mapfile -t settings < <(settings /checkout /cargo-home)
  in_debian true
  case $target in
    *linux*)
      [ -x "$debian/opt/zig/bin/cargo-zigbuild" ] ||
        python3 -m pip install --quiet --target "$debian/opt/zig" cargo-zigbuild==0.24.1 ziglang==0.17.1
      build[0]=/opt/zig/bin/cargo-zigbuild
      settings+=(CARGO_ZIGBUILD_ZIG_PATH=/opt/zig/ziglang/zig)
      ;;
    *windows*)
      in_debian apt-get install -y -qq --no-install-recommends rust-src gcc-mingw-w64-x86-64-posix \
        g++-mingw-w64-x86-64-posix nasm > /dev/null
      # Debian has Rust's library for Windows as sources alone, and those are for compilers that are called unstable.
      build+=(-Z "build-std=std,panic_unwind")
      settings+=(RUSTC_BOOTSTRAP=1)
      ;;
  esac
  in_debian env "${settings[@]}" "${build[@]}" --manifest-path /checkout/Cargo.toml
  built=$debian/target/$target/release
fi

mkdir -p "$out"
for program in "${programs[@]}"; do install -m 755 "$built/$program$suffix" "$out/$program$suffix"; done
ls -l "$out"
