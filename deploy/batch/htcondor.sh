#!/usr/bin/env bash
# A real HTCondor on this one machine, without systemd, started as root. Debian 12 has no HTCondor: the programs are
# Debian 13's in a folder of their own (install.sh htcondor), shown to the daemons and the clients by bubblewrap; jobs
# run in this machine's own file system. Daemons and jobs run as JOB_USER, and it is JOB_USER who submits.
#   deploy/batch/htcondor.sh up [FOLDER]    htcondor.sh down [FOLDER]
# Running it twice changes nothing. Clients, as JOB_USER:  PATH=FOLDER/bin:$PATH
# Environment: BATCH_DIR (default /var/tmp/batch-systems; FOLDER is BATCH_DIR/htcondor), CONDOR_ROOT
# (/var/lib/batch-systems/trixie), SLOTS (64), PORT (19618), JOB_USER (batchtest).
set -euo pipefail
SYSTEM=htcondor
. "$(dirname "$0")/common.sh"
read_words "$@"
ROOT=${CONDOR_ROOT:-/var/lib/batch-systems/trixie}
PORT=${PORT:-19618}

configure() {
    cat > "$FOLDER/condor_config" <<CONF
RELEASE_DIR = /usr
LIB = /usr/lib/condor
LIBEXEC = /usr/libexec/condor
SHARE = /usr/share/condor
LOCAL_DIR = $FOLDER
LOG = $FOLDER/log
RUN = $FOLDER/run
LOCK = $FOLDER/lock
SPOOL = $FOLDER/spool
EXECUTE = $FOLDER/execute
SEC_CREDENTIAL_DIRECTORY_KRB =
CONDOR_HOST = 127.0.0.1
NETWORK_INTERFACE = 127.0.0.1
BIND_ALL_INTERFACES = False
NETWORK_HOSTNAME = localhost
FULL_HOSTNAME = localhost
COLLECTOR_HOST = 127.0.0.1:$PORT
USE_SHARED_PORT = True
SHARED_PORT_PORT = $PORT
DAEMON_SOCKET_DIR = auto
UID_DOMAIN = localdomain
FILESYSTEM_DOMAIN = localdomain
TRUST_UID_DOMAIN = True
SEC_DEFAULT_AUTHENTICATION = REQUIRED
SEC_DEFAULT_AUTHENTICATION_METHODS = FS, CLAIMTOBE
SEC_DEFAULT_ENCRYPTION = OPTIONAL
SEC_DEFAULT_INTEGRITY = OPTIONAL
ALLOW_READ = *
ALLOW_WRITE = *
ALLOW_DAEMON = *
ALLOW_NEGOTIATOR = *
ALLOW_ADMINISTRATOR = *
ALLOW_CLIENT = *
DAEMON_LIST = MASTER COLLECTOR NEGOTIATOR SCHEDD STARTD
NUM_CPUS = ${SLOTS:-64}
MEMORY = 64000
NUM_SLOTS = 1
NUM_SLOTS_TYPE_1 = 1
SLOT_TYPE_1 = 100%
SLOT_TYPE_1_PARTITIONABLE = True
START = True
SUSPEND = False
PREEMPT = False
KILL = False
MachineMaxVacateTime = 5
RANK = 0
RUNBENCHMARKS = 0
SCHEDD_INTERVAL = 2
SCHEDD_MIN_INTERVAL = 1
NEGOTIATOR_INTERVAL = 1
NEGOTIATOR_MIN_INTERVAL = 1
NEGOTIATOR_CYCLE_DELAY = 1
UPDATE_INTERVAL = 2
STARTER_UPDATE_INTERVAL = 2
PERIODIC_EXPR_INTERVAL = 2
SHADOW_QUEUE_UPDATE_INTERVAL = 2
JOB_START_COUNT = 50
JOB_START_DELAY = 0
CLAIM_WORKLIFE = 600
CLAIM_PARTITIONABLE_LEFTOVERS = True
SCHEDD_ROUND_ATTR_Memory = 0
JOB_DEFAULT_REQUESTMEMORY = 100
JOB_DEFAULT_REQUESTDISK = 1000
DEFAULT_JOB_MAX_RETRIES = 0
MAIL = /bin/true
MASTER_BACKOFF_CONSTANT = 3
USE_PROCD = True
USER_JOB_WRAPPER = $FOLDER/bin/in-host
USE_CGROUP = False
BASE_CGROUP =
DISCARD_SESSION_KEYRING_ON_STARTUP = False
MAX_HISTORY_LOG = 200000000
CONF
}

# in-root PROGRAM...: a program of Debian 13's; in-host PROGRAM...: out of there again, for jobs.
make_commands() {
    local name
    cat > "$FOLDER/bin/in-root" <<SH
#!/bin/sh
# everything of this machine but its programs and their settings is there under its own name
for there in /*; do
    case \$there in
        /usr|/bin|/lib|/lib32|/lib64|/libx32|/sbin|/etc|/var|/dev|/proc|/sys|/host) ;;
        *) [ -d "\$there" ] && [ ! -L "\$there" ] && BWRAP_OPTIONS="\$BWRAP_OPTIONS --bind \$there \$there" ;;
    esac
done
exec bwrap \$BWRAP_OPTIONS --ro-bind $ROOT/usr /usr --ro-bind $ROOT/etc /etc --ro-bind $ROOT/var /var \
    --symlink usr/bin /bin --symlink usr/lib /lib --symlink usr/lib64 /lib64 --symlink usr/sbin /sbin \
    --bind /var/tmp /var/tmp --dev-bind / /host --dev-bind /dev /dev --proc /proc --ro-bind /etc/passwd /etc/passwd \
    --ro-bind /etc/group /etc/group --ro-bind /etc/hosts /etc/hosts --setenv PATH /usr/sbin:/usr/bin:/sbin:/bin \
    --setenv CONDOR_CONFIG $FOLDER/condor_config --chdir "\$PWD" -- "\$@"
SH
    cat > "$FOLDER/bin/in-host" <<'SH'
#!/bin/sh
# bwrap passes no signals on, and a signal is how a job is told of its end
note=$(mktemp)
bwrap --info-fd 3 --die-with-parent --dev-bind /host / --chdir "$PWD" --setenv PATH /usr/local/bin:/usr/bin:/bin -- "$@" 3> "$note" &
outer=$!
inner() { sed -n 's/.*"child-pid": *\([0-9]*\).*/\1/p' "$note"; }
for name in TERM USR1 USR2 XCPU; do trap "kill -$name \$(inner)" $name; done
while kill -0 $outer 2> /dev/null; do wait $outer; code=$?; done
rm -f "$note"
exit $code
SH
    chmod +x "$FOLDER/bin/in-root" "$FOLDER/bin/in-host"
    for name in submit q rm hold release history status wait config_val version; do
        printf '#!/bin/sh\nexec %s/bin/in-root condor_%s "$@"\n' "$FOLDER" $name > "$FOLDER/bin/condor_$name"
        chmod +x "$FOLDER/bin/condor_$name"
    done
}

# from / : the caller's directory may be closed to JOB_USER
client() (
    cd / && timeout 10 setpriv --reuid "$JOB_USER" --regid "$(id -g "$JOB_USER")" --init-groups "$FOLDER/bin/$1" "${@:2}" 2>/dev/null
)
has_slot() { [ -n "$(client condor_status -af Name)" ] && [ -n "$(client condor_status -schedd -af Name)" ]; }

up() {
    need_root
    need bwrap setsid
    [ -x "$ROOT/usr/sbin/condor_master" ] || die "no HTCondor in $ROOT: run deploy/batch/install.sh htcondor"
    make_job_user
    if [ -x "$FOLDER/bin/condor_status" ] && ! port_closed "$PORT" && has_slot; then
        say "is up already (as $JOB_USER: PATH=$FOLDER/bin:\$PATH)"
        return
    fi
    down
    port_closed "$PORT" || die "port $PORT is taken: set PORT to another one"
    say "starting in $FOLDER"
    rm -rf "$FOLDER"
    install -d -m 755 "$(dirname "$FOLDER")"
    install -d -m 755 -o "$JOB_USER" "$FOLDER" "$FOLDER"/{log,run,lock,spool,execute,bin,cred}
    configure
    make_commands
    # in a process namespace of its own: when its first process ends, nothing of the pool is left
    cd "$FOLDER"
    BWRAP_OPTIONS=--unshare-pid setsid setpriv --reuid "$JOB_USER" --regid "$(id -g "$JOB_USER")" --init-groups \
        "$FOLDER/bin/in-root" condor_master -f > "$FOLDER/log/master.out" 2>&1 < /dev/null &
    echo $! > "$FOLDER/master.pid"
    wait_for 30 has_slot || { tail -n 15 "$FOLDER"/log/{master.out,MasterLog,SchedLog,StartLog} >&2; die "the pool does not come up"; }
    say "is up (as $JOB_USER: PATH=$FOLDER/bin:\$PATH)"
}

down() {
    local outer inner master
    [ -s "$FOLDER/master.pid" ] || { say "is not there"; return; }
    outer=$(cat "$FOLDER/master.pid")
    if grep -qs condor_master "/proc/$outer/cmdline"; then
        inner=$(pgrep -P "$outer" || true)
        master=$(pgrep -P "${inner:-0}" -x condor_master || true)
        [ -z "$master" ] || kill -QUIT "$master" # the fast way down
        wait_for 10 ended "$outer" || { say "does not end: killing it"; kill -9 ${inner:-$outer} 2>/dev/null || true; }
        wait_for 5 ended "$outer" || true
    fi
    rm -f "$FOLDER/master.pid"
    say "is down"
}

case $ACTION in
    up) up ;;
    down) need_root; down ;;
    *) die "usage: htcondor.sh up|down [FOLDER]" ;;
esac
