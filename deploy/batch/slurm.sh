#!/usr/bin/env bash
# A real Slurm on this one machine, without systemd, as root; jobs run under the accounts that submit them.
#   deploy/batch/slurm.sh up [FOLDER] [--accounting]    slurm.sh down [FOLDER]
# --accounting adds slurmdbd with a MariaDB of its own, for `sacct`. Running it twice changes nothing.
# Clients:  export SLURM_CONF=FOLDER/slurm.conf
# Environment: BATCH_DIR (default /var/tmp/batch-systems; FOLDER is BATCH_DIR/slurm), NODES (2), CPUS (32 a node),
# PORT (16817, and the 30 after it), SLURMD_TIMEOUT (20 s), MESSAGE_TIMEOUT (5 s, for
# which each command waits while the controller is down), MIN_JOB_AGE (300 s), JOB_USER (batchtest).
set -euo pipefail
SYSTEM=slurm
. "$(dirname "$0")/common.sh"
read_words "$@"
export PATH=$PATH:/usr/sbin
export SLURM_CONF=$FOLDER/slurm.conf
PORT=${PORT:-16817}
NODES=${NODES:-2}

# One address for the controller: PORT; nodes: PORT+1.. ; slurmdbd: PORT+28 ; MariaDB: PORT+29.
dbd_port=$((PORT + 28))
mysql_port=$((PORT + 29))

configure() {
    local accounting=$1 host node
    host=$(hostname -s)
    cat > "$SLURM_CONF" <<CONF
ClusterName=batchtest
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$PORT
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$FOLDER/munge/socket
StateSaveLocation=$FOLDER/slurmctld
SlurmctldPidFile=$FOLDER/slurmctld.pid
SlurmctldLogFile=$FOLDER/log/slurmctld.log
SlurmdSpoolDir=$FOLDER/slurmd/%n
SlurmdPidFile=$FOLDER/slurmd/%n.pid
SlurmdLogFile=$FOLDER/log/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=500
SchedulerType=sched/backfill
SchedulerParameters=kill_invalid_depend,sched_min_interval=20000,batch_sched_delay=0,default_queue_depth=1000,bf_interval=5
MaxArraySize=20001
MaxJobCount=50000
MinJobAge=${MIN_JOB_AGE:-300}
KillWait=3
SlurmdTimeout=${SLURMD_TIMEOUT:-20}
MessageTimeout=${MESSAGE_TIMEOUT:-5}
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
CONF
    if [ "$accounting" = yes ]; then
        cat >> "$SLURM_CONF" <<CONF
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$dbd_port
AccountingStoragePass=$FOLDER/munge/socket
CONF
    else
        install -m 666 /dev/null "$FOLDER/log/jobcomp.txt"
        cat >> "$SLURM_CONF" <<CONF
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=$FOLDER/log/jobcomp.txt
CONF
    fi
    for (( node = 1; node <= NODES; node++ )); do
        # more memory than there is, so that the tests' jobs never wait for it
        echo "NodeName=n$node NodeHostname=$host NodeAddr=127.0.0.1 Port=$((PORT + node)) CPUs=${CPUS:-32} RealMemory=64000 State=UNKNOWN"
    done >> "$SLURM_CONF"
    echo "PartitionName=short Nodes=ALL Default=YES MaxTime=1:00:00 DefaultTime=10:00 OverTimeLimit=0 State=UP" >> "$SLURM_CONF"
    echo "PartitionName=long Nodes=ALL Default=NO MaxTime=24:00:00 DefaultTime=1:00:00 OverTimeLimit=0 State=UP" >> "$SLURM_CONF"
}

start_munge() {
    install -d -m 755 -o munge -g munge "$FOLDER/munge"
    install -d -m 700 -o munge -g munge "$FOLDER/key"
    (umask 077; head -c 128 /dev/urandom > "$FOLDER/key/munge.key")
    chown munge:munge "$FOLDER/key/munge.key"
    as munge munged --key-file "$FOLDER/key/munge.key" --socket "$FOLDER/munge/socket" \
        --pid-file "$FOLDER/munge/munged.pid" --log-file "$FOLDER/munge/munged.log" --seed-file "$FOLDER/munge/seed"
}

start_accounting() {
    need slurmdbd mariadbd mariadb mariadb-install-db
    local data=$FOLDER/mariadb socket=$FOLDER/mariadb/socket password
    install -d -m 755 -o mysql -g mysql "$data"
    say "starting MariaDB and slurmdbd"
    mariadb-install-db --no-defaults --user=mysql --datadir="$data/data" --skip-test-db \
        --auth-root-authentication-method=normal > "$FOLDER/log/mariadb-install.log" 2>&1
    setsid mariadbd --no-defaults --user=mysql --datadir="$data/data" --socket="$socket" --pid-file="$data/mariadbd.pid" \
        --port="$mysql_port" --bind-address=127.0.0.1 --innodb-buffer-pool-size=64M --innodb-log-file-size=16M \
        --innodb-flush-log-at-trx-commit=0 --innodb-lock-wait-timeout=900 --log-error="$FOLDER/log/mariadb.log" \
        > /dev/null 2>&1 < /dev/null &
    wait_for 20 mariadb --no-defaults -S "$socket" -u root -e 'select 1' || die "MariaDB does not answer: see $FOLDER/log"
    password=$(head -c 12 /dev/urandom | od -An -tx1 | tr -d ' \n')
    mariadb --no-defaults -S "$socket" -u root <<SQL
create database slurm_acct;
create user slurm@'127.0.0.1' identified by '$password';
grant all on slurm_acct.* to slurm@'127.0.0.1';
create user slurm@localhost identified by '$password';
grant all on slurm_acct.* to slurm@localhost;
SQL
    install -m 600 /dev/null "$FOLDER/slurmdbd.conf"
    cat > "$FOLDER/slurmdbd.conf" <<CONF
AuthType=auth/munge
AuthInfo=socket=$FOLDER/munge/socket
DbdHost=$(hostname -s)
DbdAddr=127.0.0.1
DbdPort=$dbd_port
SlurmUser=root
LogFile=$FOLDER/log/slurmdbd.log
PidFile=$FOLDER/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$mysql_port
StorageUser=slurm
StoragePass=$password
StorageLoc=slurm_acct
CONF
    SLURM_CONF=$FOLDER/slurmdbd.conf slurmdbd || die "slurmdbd does not start: see $FOLDER/log/slurmdbd.log"
    wait_for 20 port_open "$dbd_port" || die "slurmdbd does not listen: see $FOLDER/log/slurmdbd.log"
}

nodes_are_idle() { [ "$(timeout 5 sinfo -h -N -p short -o %T 2>/dev/null | grep -c -x -e idle -e mixed)" = "$NODES" ]; }

up() {
    local accounting=no node
    need_root
    need slurmctld slurmd sbatch squeue munged
    case " ${EXTRA[*]:-} " in *" --accounting "*) accounting=yes ;; esac
    if [ -s "$FOLDER/slurmctld.pid" ] && timeout 10 scontrol ping > /dev/null 2>&1 && nodes_are_idle; then
        say "is up already (export SLURM_CONF=$SLURM_CONF)"
        return
    fi
    down
    port_closed "$PORT" || die "port $PORT is taken: set PORT to another one"
    make_job_user
    say "starting in $FOLDER"
    rm -rf "$FOLDER"
    install -d -m 755 "$FOLDER" "$FOLDER/log" "$FOLDER/slurmctld" "$FOLDER/slurmd"
    start_munge
    [ $accounting = no ] || start_accounting
    configure $accounting
    # registered before the controller starts: a controller that meets an unknown cluster name has to be told later
    [ $accounting = no ] || wait_for 3 timeout 10 sacctmgr -i add cluster batchtest || die "slurmdbd refuses the cluster"
    slurmctld > "$FOLDER/log/slurmctld.out" 2>&1 || die "slurmctld does not start: see $FOLDER/log"
    for (( node = 1; node <= NODES; node++ )); do
        install -d -m 755 "$FOLDER/slurmd/n$node"
        slurmd -N "n$node" > "$FOLDER/log/n$node.out" 2>&1 || die "slurmd does not start: see $FOLDER/log/n$node.log"
    done
    wait_for 20 nodes_are_idle || { tail -n 20 "$FOLDER"/log/*.log >&2; die "the nodes do not become idle"; }
    # sacct -c wants to open this file for writing as the account that asks; slurmctld has made it its own
    [ $accounting = yes ] || chmod 666 "$FOLDER/log/jobcomp.txt"
    say "is up with $NODES nodes, accounting: $accounting (export SLURM_CONF=$SLURM_CONF)"
}

down() {
    [ -d "$FOLDER" ] || { say "is not there"; return; }
    # with the daemons gone, their jobs and slurmstepd would live on
    if [ -s "$FOLDER/slurmctld.pid" ]; then
        timeout 10 scancel --batch --signal=KILL --full -t running 2>/dev/null || true
        timeout 10 scancel -t pending,running,suspended 2>/dev/null || true
        sleep 0.5
    fi
    stop_pids slurmd $(pids_in "$FOLDER"/slurmd/*.pid)
    stop_pids slurmctld $(pids_in "$FOLDER/slurmctld.pid")
    # slurmctld removes its pid file early and keeps its port while it saves: a new one would talk to the old one
    wait_for 15 port_closed "$PORT" || die "port $PORT stays open: is another Slurm running?"
    stop_pids slurmdbd $(pids_in "$FOLDER/slurmdbd.pid")
    stop_pids mariadbd $(pids_in "$FOLDER/mariadb/mariadbd.pid")
    # munged waits ten seconds for idle threads, and has nothing to save
    stop_pids munged --at-once $(pids_in "$FOLDER/munge/munged.pid")
    say "is down"
}

case $ACTION in
    up) up ;;
    down) need_root; down ;;
    *) die "usage: slurm.sh up|down [FOLDER] [--accounting]" ;;
esac
