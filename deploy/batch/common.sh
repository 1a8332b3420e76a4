# Shared by the scripts beside it (sourced by bash, never run): words, waits and stops that all batch systems need.

say() { printf '%s: %s\n' "$SYSTEM" "$*"; }
die() { printf '%s: %s\n' "$SYSTEM" "$*" >&2; exit 1; }

# usage_and_folder "$@": sets ACTION and FOLDER from "up|down [FOLDER]"; further words stay in EXTRA.
read_words() {
    ACTION=${1:-}
    shift || true
    FOLDER=${BATCH_DIR:-/var/tmp/batch-systems}/$SYSTEM
    if [ "${1:-}" ] && [ "${1#--}" = "$1" ]; then FOLDER=$1; shift; fi
    case $FOLDER in /*) ;; *) FOLDER=$PWD/$FOLDER ;; esac
    # the daemons put the folder into configuration files that have no quoting
    case $FOLDER in *[!A-Za-z0-9_./-]*) die "the folder's name may hold only letters, digits and . _ - /: $FOLDER" ;; esac
    EXTRA=("$@")
}

need_root() { [ "$(id -u)" = 0 ] || die "must run as root: jobs run under the accounts that submit them"; }

# need PROGRAM...: every program must be there; the sentence says how to get it.
need() {
    local program
    for program in "$@"; do
        command -v "$program" >/dev/null 2>&1 || die "no $program here: run deploy/batch/install.sh $SYSTEM"
    done
}

# The account that jobs of tests run under: an ordinary one, as at a computing centre.
make_job_user() {
    JOB_USER=${JOB_USER:-batchtest}
    id "$JOB_USER" >/dev/null 2>&1 || { useradd -m -s /bin/bash "$JOB_USER"; say "made the account $JOB_USER"; }
}

# as USER COMMAND...: without the caller's environment groups, and without a login shell.
as() { local user=$1; shift; setpriv --reuid "$user" --regid "$(id -g "$user")" --init-groups "$@"; }

# wait_for SECONDS COMMAND...: true as soon as the command is.
wait_for() {
    local tenths=$(( $1 * 10 )) tenth
    shift
    for (( tenth = 0; tenth < tenths; tenth++ )); do
        "$@" >/dev/null 2>&1 && return 0
        sleep 0.1
    done
    return 1
}

port_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
port_closed() { ! port_open "$1"; }
# a zombie has ended too: in a container the first process may be slow to collect it
ended() { ! kill -0 "$1" 2>/dev/null || grep -qs '^State:.Z' "/proc/$1/status"; }

# stop_pids PATTERN [--at-once] NUMBER...: TERM, wait, then KILL; only processes whose command line holds PATTERN, since
# a number in a stale file may belong to somebody else by now. With AT_ONCE=1 in the environment KILL comes first: where the state
# is thrown away afterwards, as in tests, there is nothing to save.
stop_pids() {
    local pattern=$1 pid alive=() line signal=TERM
    shift
    if [ "${1:-}" = --at-once ]; then signal=KILL; shift; fi
    [ -z "${AT_ONCE:-}" ] || signal=KILL
    for pid in "$@"; do
        line=$(cat "/proc/$pid/cmdline" 2>/dev/null | tr '\0' ' ') || continue
        case $line in *"$pattern"*) kill -$signal "$pid" 2>/dev/null && alive+=("$pid") ;; esac
    done
    for pid in "${alive[@]}"; do
        wait_for 15 ended "$pid" || { say "process $pid does not end: killing it"; kill -9 "$pid" 2>/dev/null || true; }
    done
}

# stop_below PATTERN: kills processes with PATTERN in their command line that stand in FOLDER, and their children: what
# looks after a job lives on when its daemon is gone.
stop_below() {
    local process pid child
    for process in /proc/[0-9]*; do
        case $(readlink "$process/cwd" 2>/dev/null) in "$FOLDER"/*) ;; *) continue ;; esac
        grep -qs -a "$1" "$process/cmdline" || continue
        pid=${process#/proc/}
        for child in $(pgrep -P "$pid" || true); do kill -9 "$child" 2>/dev/null || true; done
        kill -9 "$pid" 2>/dev/null || true
    done
}

pids_in() { cat "$@" 2>/dev/null || true; }
