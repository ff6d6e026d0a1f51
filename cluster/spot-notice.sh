#!/bin/sh
# Waits for AWS's notice that this spot machine will be taken away in two minutes, notifies Ray once, and exits.
# Wants `ray` on the PATH, and RAY_ADDRESS.
metadata="${METADATA_URL:-http://169.254.169.254}/latest"
while sleep "${METADATA_SECONDS:-5}"; do
  token=$(curl -sf -m 2 -X PUT "$metadata/api/token" -H "X-aws-ec2-metadata-token-ttl-seconds: 60") || continue
  # 404 as long as there is none.
  curl -sf -m 2 -o /dev/null "$metadata/meta-data/spot/instance-action" -H "X-aws-ec2-metadata-token: $token" || continue
  exec ray drain-node --reason=DRAIN_NODE_REASON_PREEMPTION --reason-message=spot --deadline-remaining-seconds=110
done
