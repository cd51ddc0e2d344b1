#!/usr/bin/env bash
# A Slurm of one node on this machine: munged, slurmctld and slurmd on loopback, all they keep in one folder. Needs
# Debian's `slurm-wlm` and `munge`; installs nothing, and needs no other Slurm.
#
#   tests/slurm/cluster.sh start DIR     # then: export SLURM_CONF=DIR/slurm.conf
#   tests/slurm/cluster.sh stop DIR
#
# Timers are short: a requeued job waits 5 seconds rather than 120 (cred_expire), a cancelled one has 10 to save (KillWait).
set -euo pipefail
PATH="$PATH:/usr/sbin:/sbin"

start() {
  local dir user host port cpus
  mkdir -p "$1" && dir=$(cd "$1" && pwd)
  user=$(id -un) host=$(hostname -s)
  cpus=$(nproc)
  # Two free ports, far from those of a real cluster.
  port=$((20000 + RANDOM % 20000))
  while ss -Hltn "( sport = :$port or sport = :$((port + 1)) )" 2>/dev/null | grep -q .; do port=$((port + 2)); done
  mkdir -p "$dir/munge" "$dir/state" "$dir/spool"
  chmod 700 "$dir/munge"
  head -c 1024 /dev/urandom >"$dir/munge/key"
  chmod 600 "$dir/munge/key"
  cat >"$dir/slurm.conf" <<CONF
ClusterName=pipe-test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$dir/munge/socket,cred_expire=5
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,sched_min_interval=1000,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdParameters=config_overrides
ReturnToService=2
JobRequeue=1
KillWait=10
OverTimeLimit=0
MinJobAge=300
InactiveLimit=0
NodeName=node1 NodeHostname=$host NodeAddr=127.0.0.1 CPUs=$cpus State=UNKNOWN
PartitionName=work Nodes=node1 Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes=node1 MaxTime=INFINITE State=UP PriorityTier=9 PreemptMode=OFF
CONF
  export SLURM_CONF="$dir/slurm.conf"
  munged --force --foreground --socket="$dir/munge/socket" --key-file="$dir/munge/key" --pid-file="$dir/munge/pid" \
    --log-file="$dir/munge/log" --seed-file="$dir/munge/seed" >"$dir/munge/out" 2>&1 &
  echo $! >"$dir/munged.started"
  wait_for "munged" test -S "$dir/munge/socket"
  slurmctld -D -c >"$dir/slurmctld.out" 2>&1 &
  echo $! >"$dir/slurmctld.started"
  wait_for "slurmctld" scontrol ping
  slurmd -D -N node1 >"$dir/slurmd.out" 2>&1 &
  echo $! >"$dir/slurmd.started"
  wait_for "slurmd" sh -c 'sinfo --noheader --format=%T | grep -q idle'
}

wait_for() {
  local what=$1
  shift
  for _ in $(seq 100); do
    if "$@" >/dev/null 2>&1; then return; fi
    sleep 0.2
  done
  echo "$what did not start:" >&2
  tail -n 20 "$dir"/*.log "$dir"/*.out "$dir"/munge/log "$dir"/munge/out >&2 || true
  stop "$dir"
  exit 1
}

# The node daemon first: jobs that still run end with it.
stop() {
  local name pid
  export SLURM_CONF="$1/slurm.conf"
  scancel --user="$(id -un)" >/dev/null 2>&1 || true
  for name in slurmd slurmctld munged; do
    [ -e "$1/$name.started" ] || continue
    pid=$(cat "$1/$name.started")
    kill -TERM "$pid" 2>/dev/null || true
    for _ in $(seq 50); do
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null || true
    rm -f "$1/$name.started"
  done
}

case "${1:-} ${2:-}" in
  "start "?*) start "$2" ;;
  "stop "?*) stop "$2" ;;
  *)
    echo "usage: $0 start|stop DIR" >&2
    exit 2
    ;;
esac
