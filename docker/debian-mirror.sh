#!/usr/bin/env bash
# Prints the first Debian mirror that apt uses on this machine, in either form of its configuration.
set -euo pipefail
mirrors() {
  grep -rhs '^URIs:' /etc/apt/sources.list.d | sed 's/^URIs:[[:space:]]*//'
  grep -hs '^deb ' /etc/apt/sources.list | grep -o 'https\?://[^ ]*'
}
# A file that is not there is no mirror.
first=$({ mirrors || true; } | tr ' ' '\n' | grep -m 1 '/debian/*$') || { echo "apt knows no Debian mirror" >&2; exit 1; }
echo "$first"
