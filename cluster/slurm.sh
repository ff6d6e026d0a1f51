#!/usr/bin/env bash
# One command on a Ray cluster that lives as long as the Slurm job. On the cluster's shared file system:
#   export MAPL_VENV=$HOME/mapl_ray/.venv        # an environment that every node sees
#   sbatch --nodes=4 cluster/slurm.sh pipeline --config jobs/configs/llama-8b-multinode.yaml
#   tail -f mapl-JOBID.log
#SBATCH --job-name=mapl
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1      # one raylet a node; Ray starts the workers
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64       # change to what a node has
#SBATCH --exclusive              # Ray's ports are this job's alone
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120      # two minutes to stop in good order before the time is up
#SBATCH --output=mapl-%j.log
set -euo pipefail
umask 077  # token and Ray's session files: nobody else's

[ $# -gt 0 ] || { echo "usage: sbatch [--nodes=N] cluster/slurm.sh COMMAND --config FILE [section.key=value ...]" >&2; exit 2; }
[ -z "${MAPL_VENV:-}" ] || PATH=$MAPL_VENV/bin:$PATH
nodes=${SLURM_JOB_NUM_NODES:-1}
job_id=${SLURM_JOB_ID:-$$}
port=${MAPL_RAY_PORT:-6379}
private=$(mktemp -d "${MAPL_TOKEN_ROOT:-$HOME}/.mapl-ray-$job_id-XXXXXX")  # must be on storage that every node sees
started=()

finish() {
    code=$?
    trap - EXIT
    trap '' TERM INT
    [ "$code" -ne 0 ] || touch "$private/succeeded"
    for ((i = ${#started[@]} - 1; i >= 0; i--)); do  # the command, then the workers, then the head
        kill -TERM "${started[i]}" 2>/dev/null || true
        wait "${started[i]}" 2>/dev/null || true
    done
    grep '^logs of Ray' "$private/head.log" || true
    rm -rf "$private"
    exit "$code"
}
trap finish EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

# What every node runs: `ray start ...` with its session inside a folder that this user alone may enter, because Ray
# opens its own to everybody. It starts there too, because Ray runs Python that imports from where it was started. The
# name can't be guessed, so nobody can have made the folder before, and it is short, because the paths of sockets end at
# 107 characters. After a failure the folder stays, with Ray's logs.
on_a_node='umask 077
session=$(mktemp -d /tmp/mapl-XXXXXXXXXX) || exit 1
cd "$session"
RAY_TMPDIR=$session "$@" --temp-dir="$session/ray" &
ray=$! code=0
trap "kill -TERM $ray 2>/dev/null" TERM INT
while kill -0 "$ray" 2>/dev/null; do wait "$ray" || code=$?; done
if [ -e "${RAY_AUTH_TOKEN_PATH%/*}/succeeded" ]; then rm -rf "$session"; else echo "logs of Ray on $(hostname): $session"; fi
exit "$code"'

# A token of this job's own, handed on by path: its value is in no argument list and no environment.
# Python must not import modules from the folder that the job was submitted in (as `python -P`).
export PYTHONSAFEPATH=1
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$private/token
python -c 'import secrets; print(secrets.token_hex(32))' >"$RAY_AUTH_TOKEN_PATH"
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0  # when we stop Ray there is nothing left to wait for
# Ports for Prometheus ask for no token, so there are none: Ray starts no server on port -1, and says so in its logs.
export RAY_enable_metrics_collection=false AUTOSCALER_METRIC_PORT=-1 DASHBOARD_METRIC_PORT=-1
unset RAY_ADDRESS

# Several networks on a node: say which one with MAPL_HEAD_IP.
ip=${MAPL_HEAD_IP:-$(python -c 'import ray; print(ray.util.get_node_ip_address())')}
common=(--disable-usage-stats --block)
# The batch script runs on the job's first node. The dashboard stays on its loopback; `ssh -L` reaches it.
bash -c "$on_a_node" node ray start --head --node-ip-address="$ip" --port="$port" --dashboard-host=127.0.0.1 \
    ${MAPL_RAY_HEAD_OPTIONS:-} "${common[@]}" >"$private/head.log" 2>&1 &
started+=($!)
for ((second = 0; ; second++)); do
    ray health-check --address "$ip:$port" >/dev/null 2>&1 && break
    if [ "$second" -ge 60 ] || ! kill -0 "${started[0]}" 2>/dev/null; then
        cat "$private/head.log" >&2
        echo "Ray's head did not start on $ip:$port. Is the port taken? Set MAPL_RAY_PORT." >&2
        exit 1
    fi
    sleep 1
done
joined() {  # wait until that many nodes are there; the head's control store answers before its own node has joined
    RAY_ADDRESS=$ip:$port python - "$1" <<'PYTHON'
import sys, time, ray
wanted, there, deadline = int(sys.argv[1]), 0, time.monotonic() + 300
while there < wanted:
    if time.monotonic() > deadline:
        sys.exit(f"{there} of {wanted} nodes joined within 300 s: can they reach each other (cluster/README.md)?")
    try:
        ray.is_initialized() or ray.init(log_to_driver=False, logging_level="critical")
        there = sum(node["Alive"] for node in ray.nodes())
    except (ConnectionError, RuntimeError) as error:
        print(f"waiting for the head: {str(error).splitlines()[0]}", flush=True)
    time.sleep(1)
print(f"Ray: {there} node(s), {ray.cluster_resources()}", flush=True)
PYTHON
}
if [ "$nodes" -gt 1 ]; then
    joined 1
    srun --nodes=$((nodes - 1)) --ntasks=$((nodes - 1)) --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
        --exclude="$SLURMD_NODENAME" bash -c "$on_a_node" node ray start --address="$ip:$port" "${common[@]}" &
    started+=($!)
fi
joined "$nodes"  # a stage is refused if its workers do not fit, so every node must be there before it starts

mapl "$@" "cluster.address=$ip:$port" &
started+=($!)
wait $!
