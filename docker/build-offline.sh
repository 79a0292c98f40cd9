#!/usr/bin/env bash
# Builds the four images where no image registry is reachable: the base images come from Debian's packages, the
# binaries from cargo on this machine, or with this machine's Rust inside of the build.
#
#   cargo build --release --locked --workspace
#   sudo docker/build-offline.sh [TAG]                   # TAG: default 0.1.0
#   sudo BINARIES=build docker/build-offline.sh [TAG]    # compiles in the build, crates.io must be reachable
#
# Needs root (debootstrap makes a root file system), debootstrap and a running Docker engine. The binaries need the C
# library that they were linked with: SUITE must be the Debian release of this machine, or a newer one.
# Variables: BINARIES (prebuilt) · SUITE (bookworm) · MIRROR (the machine's own) · BIN_DIR (target/release) ·
# PREFIX (llama-swarm) · BASE_PREFIX (PREFIX: whose base images are used) · LABEL (none: KEY=VALUE on all that is built
# upon the bases, so that all of it can be found and removed).
# The base images are made once, and then neither root nor debootstrap is needed;
# `docker rmi llama-swarm/base-build:bookworm` has them made again, with Debian's updates.
set -euo pipefail
cd "$(dirname "$0")/.."

tag=${1:-0.1.0}
suite=${SUITE:-bookworm}
bin_dir=${BIN_DIR:-target/release}
prefix=${PREFIX:-llama-swarm}
binaries=(shard-worker rendezvous gateway llama-swarm)
base_prefix=${BASE_PREFIX:-$prefix}
from=${BINARIES:-prebuilt}
build_base=$base_prefix/base-build:$suite
runtime_base=$base_prefix/base-runtime:$suite
work=$(mktemp -d)
notices=docker/prebuilt/THIRD-PARTY-NOTICES
trap 'rm -rf "$work" "$notices" "${binaries[@]/#/docker/prebuilt/}"' EXIT

case $from in
  prebuilt) needed=("${binaries[@]}" notices) ;;
  build) needed=() ;;
  *) echo "BINARIES is prebuilt or build, not $from" >&2; exit 1 ;;
esac
for name in "${needed[@]}"; do
  [ -x "$bin_dir/$name" ] || { echo "no $bin_dir/$name: run cargo build --release --locked --workspace" >&2; exit 1; }
done

make_bases() {
  local mirror
  mirror=${MIRROR:-$(docker/debian-mirror.sh)}
  debootstrap --variant=minbase --include=ca-certificates "$suite" "$work/full" "$mirror"
  tar -C "$work/full" --exclude='./var/cache/apt/*' --exclude='./var/lib/apt/lists/*' --exclude='./dev/*' -c . \
    | docker import - "$build_base" > /dev/null
  runtime_files "$work/full" | tar -C "$work/full" --no-recursion --null --verbatim-files-from -T - -c \
    | docker import --change 'ENV PATH=/usr/local/bin:/usr/bin' - "$runtime_base" > /dev/null
}

# The base with a C compiler and this machine's Rust; documentation and sources stay behind. It trusts whom this machine
# trusts: a mirror of crates.io may be certified by the house itself.
make_rust_base() {
  local context=$work/rust
  mkdir "$context"
  tar -C "$(rustc --print sysroot)" --exclude='./share' --exclude='./lib/rustlib/src' -cf "$context/toolchain.tar" .
  cp /etc/ssl/certs/ca-certificates.crt "$context"
  cat > "$context/Dockerfile" <<DOCKERFILE
FROM $build_base
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
ADD toolchain.tar /usr/local/
COPY ca-certificates.crt /etc/ssl/certs/
DOCKERFILE
  build_base=$base_prefix/base-rust:$suite
  docker build --quiet --tag "$build_base" "$context" > /dev/null
}

# What a node needs and nothing else, no shell either: the C library, libgcc, certificates, names of users and
# services. Ends each name with a zero byte, for tar.
runtime_files() {
  local root=$1 name folder
  {
    printf '%s\n' . ./etc ./tmp ./usr ./usr/bin ./usr/lib ./usr/lib64 ./usr/sbin ./var ./var/lib ./var/cache ./run \
      ./bin ./lib ./lib64 ./sbin ./etc/ssl ./etc/ssl/certs ./etc/ssl/certs/ca-certificates.crt \
      ./etc/passwd ./etc/group ./etc/nsswitch.conf ./etc/os-release ./usr/lib/os-release \
      ./usr/share ./usr/share/doc
    # Who wrote all that, and the licences that are named there. libgcc's folder is a link to that of the compiler.
    printf '%s\n' ./usr/share/common-licenses ./usr/share/doc/libgcc-s1
    (cd "$root" && find ./usr/share/common-licenses/ -mindepth 1)
    for name in libc6 libgcc-s1 ca-certificates; do
      folder=./usr/share/doc/$(basename "$(readlink -f "$root/usr/share/doc/$name")")
      printf '%s\n' "$folder" "$folder/copyright"
    done
    # /lib is a link to /usr/lib, and a file must be named by where it really lies.
    chroot "$root" dpkg -L libc6 libgcc-s1 \
      | grep -E '^(/usr)?/lib(64|32)?/' | grep -vE '/(gconv|audit)(/|$)' | sed -E 's#^(/usr)?/(lib[0-9]*)/#./usr/\2/#'
  } | sort -u | while read -r name; do
    if [ -e "$root/$name" ] || [ -L "$root/$name" ]; then printf '%s\0' "$name"; fi
  done
}

# Descendants take over a label, the stages without a name too.
label_bases() {
  for base in build_base runtime_base; do
    printf 'FROM %s\nLABEL %s\n' "${!base}" "$LABEL" \
      | docker build --quiet --tag "$prefix/labelled-$base:$tag" - > /dev/null
    printf -v "$base" %s "$prefix/labelled-$base:$tag"
  done
}

# Cargo tells what is in the binaries. It is asked as the user who called sudo: root may have none.
print_notices() {
  local user=${SUDO_USER:-root}
  if [ "$user" = root ]; then "$bin_dir/notices"; return; fi
  sudo --user "$user" --set-home env "PATH=$(sudo --user "$user" --login printenv PATH)" "$bin_dir/notices"
}

stage_binaries() {
  [ ${#needed[@]} -gt 0 ] || return 0
  print_notices > "$notices"
  for name in "${binaries[@]}"; do
    rm -f "docker/prebuilt/$name"
    # As in the Dockerfile; without binutils the images are a little larger.
    strip --strip-debug -o "docker/prebuilt/$name" "$bin_dir/$name" 2> /dev/null \
      || cp "$bin_dir/$name" "docker/prebuilt/$name"
  done
}

docker image inspect "$build_base" "$runtime_base" > /dev/null 2>&1 || make_bases
[ "$from" = prebuilt ] || make_rust_base
[ -z "${LABEL:-}" ] || label_bases
stage_binaries
for target in "${binaries[@]}"; do
  docker build --quiet --file docker/Dockerfile --target "$target" --tag "$prefix/$target:$tag" \
    --build-arg BINARIES="$from" --build-arg BUILD_IMAGE="$build_base" --build-arg RUNTIME_IMAGE="$runtime_base" .
done
docker images "$prefix/*:$tag"
