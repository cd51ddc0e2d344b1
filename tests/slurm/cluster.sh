#!/usr/bin/env bash
# A Slurm of one node, or of two, on this machine: munged, slurmctld and slurmd on loopback, all they keep in one folder. Needs
# Debian's `slurm-wlm` and `munge`; installs nothing, and needs no other Slurm.
#
#   tests/slurm/cluster.sh start DIR     # then: export SLURM_CONF=DIR/slurm.conf
#   tests/slurm/cluster.sh start-two DIR
#   tests/slurm/cluster.sh start-large DIR
#   tests/slurm/cluster.sh stop DIR
#
# `start-two` makes two nodes with two GPUs each that nobody has built in. A large one has accounts besides: a database and slurmdbd run beside it (`mariadb-server`,
# `slurmdbd`), and the controller forgets a job that has ended within a minute.
#
# What has a Unix socket in it (the nodes' spool folders, munge, the database) stands behind a short link: a socket's address has 107
# bytes, and DIR may have more by itself. `slurmstepd` ends without a word to `squeue` where it does not fit.
#
# A port that is free when it is looked for may be taken when it is bound, by a connection of another test for one. Then all begins
# again with other ports.
#
# Timers are short: a requeued job waits 5 seconds rather than 120 (cred_expire), a cancelled one has 10 to save (KillWait).
set -Eeuo pipefail
trap 'echo "$0: line $LINENO failed: $BASH_COMMAND" >&2' ERR
PATH="$PATH:/usr/sbin:/sbin"
readonly taken=76 # how an attempt ends that lost a port

start() {
  local code=0
  for _ in $(seq 8); do
    code=0
    bash "$0" attempt "$@" || code=$?
    [ "$code" = "$taken" ] || break
    echo "$0: a port was taken in the meantime; once more with others" >&2
    # What a controller or a database has begun would not fit the next one.
    rm -rf "$1"/{munge,state,spool,db,tmp} "$1"/*.{log,out}
  done
  return "$code"
}

attempt() {
  local dir short user host port cpus accounting="accounting_storage/none" age=300 nodes=1 gpus=""
  mkdir -p "$1" && dir=$(cd "$1" && pwd)
  short=$(mktemp -d /tmp/slurm.XXXXXX)
  echo "$short" >"$dir/short"
  ln -s "$dir" "$short/d"
  dir=$short/d
  user=$(id -un) host=$(hostname -s)
  cpus=$(nproc)
  # Five free ports in a row, far from those of a real cluster, and below those that connections get (32768 and more). Processes of
  # jobs begin to look for theirs at 12000.
  port=$((13000 + RANDOM % 19000))
  while ss -Hatn "( sport >= :$port and sport <= :$((port + 4)) )" 2>/dev/null | grep -q .; do port=$((port + 5)); done
  mkdir -p "$dir/munge" "$dir/state" "$dir/spool"
  chmod 700 "$dir/munge"
  head -c 1024 /dev/urandom >"$dir/munge/key"
  chmod 600 "$dir/munge/key"
  if [ -n "${2:-}" ]; then
    nodes=2 gpus="Gres=gpu:2"
    touch "$dir/gpu0" "$dir/gpu1"
    echo "NodeName=node[1-2] Name=gpu File=$dir/gpu[0-1]" >"$dir/gres.conf"
  fi
  if [ "${2:-}" = large ]; then accounting="accounting_storage/slurmdbd" age=2; fi
  cat >"$dir/slurm.conf" <<CONF
ClusterName=pipe-test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$dir/munge/socket,cred_expire=5
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool/%n
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.%n.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
AccountingStorageType=$accounting
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$((port + 2))
AccountingStoragePass=$dir/munge/socket
JobAcctGatherType=jobacct_gather/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,sched_min_interval=1000,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdParameters=config_overrides
ReturnToService=1
JobRequeue=1
KillWait=10
OverTimeLimit=0
MinJobAge=$age
InactiveLimit=0
GresTypes=gpu
$(for n in $(seq $nodes); do echo "NodeName=node$n NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + (n == 1 ? 1 : 4))) CPUs=$cpus $gpus State=UNKNOWN"; done)
PartitionName=work Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=9 PreemptMode=OFF
CONF
  export SLURM_CONF="$dir/slurm.conf"
  munged --force --foreground --socket="$dir/munge/socket" --key-file="$dir/munge/key" --pid-file="$dir/munge/pid" \
    --log-file="$dir/munge/log" --seed-file="$dir/munge/seed" >"$dir/munge/out" 2>&1 &
  echo $! >"$dir/munged.started"
  wait_for "munged" test -S "$dir/munge/socket"
  if [ "${2:-}" = large ]; then
    accounts "$dir" "$user" "$host" "$port"
  fi
  slurmctld -D -c >"$dir/slurmctld.out" 2>&1 &
  echo $! >"$dir/slurmctld.started"
  wait_for "slurmctld" scontrol ping
  for node in $(seq "$nodes"); do
    mkdir -p "$dir/spool/node$node"
    slurmd -D -N "node$node" >"$dir/slurmd$node.out" 2>&1 &
    echo $! >"$dir/slurmd$node.started"
  done
  wait_for "slurmd" sh -c "sinfo --noheader --partition=work --states=idle --format=%D | grep -qx $nodes"
}

# A database and slurmdbd, on the third and fourth of the ports.
accounts() {
  local dir=$1 user=$2 host=$3 port=$4 password
  password=$(head -c 12 /dev/urandom | od -An -tx1 | tr -d ' \n')
  mkdir -p "$dir/db" "$dir/tmp"
  # Several that are made at once would meet in /tmp.
  mariadb-install-db --no-defaults --auth-root-authentication-method=normal --user="$user" --datadir="$dir/db" --tmpdir="$dir/tmp" \
    >"$dir/db.out" 2>&1
  mariadbd --no-defaults --user="$user" --datadir="$dir/db" --tmpdir="$dir/tmp" --socket="$dir/db/socket" --pid-file="$dir/db/pid" \
    --bind-address=127.0.0.1 --port=$((port + 3)) --innodb-buffer-pool-size=16M >>"$dir/db.out" 2>&1 &
  echo $! >"$dir/mariadbd.started"
  wait_for "mariadbd" mariadb --no-defaults --socket="$dir/db/socket" --user=root -e "select 1"
  mariadb --no-defaults --socket="$dir/db/socket" --user=root \
    -e "create user slurm@'127.0.0.1' identified by '$password'; grant all on accounts.* to slurm@'127.0.0.1'"
  cat >"$dir/slurmdbd.conf" <<CONF
DbdHost=$host
DbdAddr=127.0.0.1
DbdPort=$((port + 2))
SlurmUser=$user
AuthType=auth/munge
AuthInfo=socket=$dir/munge/socket
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$((port + 3))
StorageUser=slurm
StoragePass=$password
StorageLoc=accounts
LogFile=$dir/slurmdbd.log
PidFile=$dir/slurmdbd.pid
CONF
  chmod 600 "$dir/slurmdbd.conf"
  slurmdbd -D >"$dir/slurmdbd.out" 2>&1 &
  echo $! >"$dir/slurmdbd.started"
  wait_for "slurmdbd" sacctmgr --noheader list cluster
  sacctmgr --immediate add cluster pipe-test >"$dir/sacctmgr.out" 2>&1
}

wait_for() {
  local what=$1
  shift
  for _ in $(seq 100); do
    if "$@" >/dev/null 2>&1; then return; fi
    if lost_port; then break; fi
    sleep 0.2
  done
  echo "$what did not start:" >&2
  tail -n 20 "$dir"/*.log "$dir"/*.out "$dir"/munge/log "$dir"/munge/out >&2 || true
  local code=1
  if lost_port; then code=$taken; fi
  stop "$dir"
  exit "$code"
}

lost_port() { grep -qs "Address already in use" "$dir"/*.log "$dir"/*.out; }

# The node daemon first: jobs that still run end with it.
stop() {
  local name pid short
  export SLURM_CONF="$1/slurm.conf"
  scancel --user="$(id -un)" >/dev/null 2>&1 || true
  for name in slurmd1 slurmd2 slurmctld slurmdbd mariadbd munged; do
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
  if [ -e "$1/short" ]; then
    short=$(cat "$1/short")
    rm -f "$1/short" "$short/d" # in this order: $1 may lead through the link
    rmdir "$short" || true
  fi
}

case "${1:-} ${2:-}" in
  "attempt "?*) attempt "$2" "${3:-}" ;; # of the ways to start below
  "start "?*) start "$2" ;;
  "start-two "?*) start "$2" two ;;
  "start-large "?*) start "$2" large ;;
  "stop "?*) stop "$2" ;;
  *)
    echo "usage: $0 start|start-two|start-large|stop DIR" >&2
    exit 2
    ;;
esac
