#!/bin/bash
# Stands before runc on a node. Who may not lower a process's oom_score_adj (CAP_SYS_RESOURCE), as a container often may
# not, cannot start pods: the kubelet asks for -998.
bundle=
for ((i = 1; i <= $#; i++)); do
  [ "${!i}" != --bundle ] || { next=$((i + 1)); bundle=${!next}; }
done
[ -z "$bundle" ] || sed -i -E 's/"oomScoreAdj":-[0-9]+/"oomScoreAdj":0/' "$bundle/config.json"
exec /usr/sbin/runc "$@"
