#!/bin/sh
# Makes a node's identity without a node: make-identity.sh FILE
#
# The form is libp2p's: a protobuf message PrivateKey { 1: type = Ed25519, 2: 32 bytes of seed, 32 bytes of public key }.
set -eu
umask 077
file=${1:?usage: make-identity.sh FILE}
[ ! -e "$file" ] || { echo "$file exists: it is not replaced" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
openssl genpkey -algorithm ed25519 -outform DER -out "$work/private"
openssl pkey -inform DER -in "$work/private" -pubout -outform DER -out "$work/public"
# In both DER forms the key itself is the last 32 bytes.
{ printf '\010\001\022\100'; tail -c 32 "$work/private"; tail -c 32 "$work/public"; } > "$file"
