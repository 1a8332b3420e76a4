#!/usr/bin/env bash
# A real Grid Engine on this one machine, without systemd, as root; jobs run under the accounts that submit them.
#   deploy/batch/gridengine.sh up [FOLDER]    gridengine.sh down [FOLDER]
# Running it twice changes nothing. Clients:  . FOLDER/default/common/settings.sh
# Environment: BATCH_DIR (default /var/tmp/batch-systems; FOLDER is BATCH_DIR/gridengine), SLOTS (32), PORT (16444, and
# the one after it), JOB_USER (batchtest). Queues: short.q (the default) and long.q.
set -euo pipefail
SYSTEM=gridengine
. "$(dirname "$0")/common.sh"
read_words "$@"
LIB=/usr/lib/gridengine # the commands in /usr/bin are shell wrappers of 60 ms each
export PATH=$LIB:$PATH:/usr/sbin
PORT=${PORT:-16444}
export SGE_ROOT=$FOLDER SGE_CELL=default SGE_QMASTER_PORT=$PORT SGE_EXECD_PORT=$((PORT + 1))

# set_values FILE NAME VALUE...: in a file of "name   value" lines
set_values() {
    local file=$1
    shift
    while [ $# -gt 1 ]; do
        sed -i "s#^$1 .*#$1 $2#" "$file"
        shift 2
    done
}

lay_out() {
    local name common=$FOLDER/default/common host
    install -d -m 755 -o sgeadmin -g sgeadmin "$FOLDER" "$FOLDER/default" "$common" "$FOLDER/qmaster" \
        "$FOLDER/qmaster/job_scripts" "$FOLDER/spooldb" "$FOLDER/execd" "$FOLDER/log"
    for name in bin lib utilbin; do
        install -d -m 755 "$FOLDER/$name"
        ln -s $LIB "$FOLDER/$name/lx-amd64"
    done
    ln -s /usr/share/gridengine/util "$FOLDER/util"
    host=$("$LIB/gethostname" -name)
    echo "$host" > "$common/act_qmaster"
    # 127.0.0.1 resolves to "localhost", and without this line every client is refused
    echo "$host localhost" > "$common/host_aliases"
    cat > "$common/bootstrap" <<CONF
admin_user              sgeadmin
default_domain          none
ignore_fqdn             true
spooling_method         berkeleydb
spooling_lib            libspoolb
spooling_params         $FOLDER/spooldb
binary_path             $FOLDER/bin
qmaster_spool_dir       $FOLDER/qmaster
security_mode           none
listener_threads        2
worker_threads          2
scheduler_threads       1
CONF
    cat > "$common/settings.sh" <<CONF
SGE_ROOT=$FOLDER SGE_CELL=default SGE_ARCH=lx-amd64 SGE_QMASTER_PORT=$SGE_QMASTER_PORT SGE_EXECD_PORT=$SGE_EXECD_PORT
export SGE_ROOT SGE_CELL SGE_ARCH SGE_QMASTER_PORT SGE_EXECD_PORT
PATH=$LIB:\$PATH
CONF
    cp /usr/share/gridengine/default-configuration "$FOLDER/conf.global"
    # groups of its own: a job's end kills whatever is in its group, another Grid Engine's jobs on this machine too
    set_values "$FOLDER/conf.global" execd_spool_dir "$FOLDER/execd" mailer /bin/true min_uid 0 min_gid 0 \
        load_report_time 00:00:02 max_unheard 00:00:20 gid_range $((100000 + PORT * 1000))-$((100999 + PORT * 1000)) shell_start_mode unix_behavior \
        finished_jobs 1000 \
        reporting_params "accounting=true reporting=false flush_time=00:00:01 joblog=false sharelog=00:00:00 accounting_flush_time=00:00:00"
    chown -R sgeadmin:sgeadmin "$FOLDER/default"
}

fill_database() {
    local db=(berkeleydb libspoolb "$FOLDER/spooldb") manager
    as sgeadmin "$LIB/spoolinit" "${db[@]}" init
    as sgeadmin "$LIB/spooldefaults" configuration "$FOLDER/conf.global"
    as sgeadmin "$LIB/spooldefaults" complexes /usr/share/gridengine/util/resources/centry
    as sgeadmin "$LIB/spooldefaults" usersets /usr/share/gridengine/util/resources/usersets
    for manager in root sgeadmin; do as sgeadmin "$LIB/spooldefaults" managers $manager; done
}

add_queue() {
    local limit
    {
        printf '%s\n' "qname $1" 'hostlist @allhosts' "seq_no $2" 'load_thresholds NONE' 'suspend_thresholds NONE' \
            'nsuspend 1' 'suspend_interval 00:05:00' 'priority 0' 'min_cpu_interval 00:05:00' 'processors UNDEFINED' \
            'qtype BATCH INTERACTIVE' 'ckpt_list NONE' 'pe_list smp' 'rerun FALSE' "slots ${SLOTS:-32}" 'tmpdir /tmp' \
            'shell /bin/sh' 'prolog NONE' 'epilog NONE' 'shell_start_mode unix_behavior' 'starter_method NONE' \
            'suspend_method NONE' 'resume_method NONE' 'terminate_method NONE' 'notify 00:00:02' 'owner_list NONE' \
            'user_lists NONE' 'xuser_lists NONE' 'subordinate_list NONE' 'complex_values NONE' 'projects NONE' \
            'xprojects NONE' 'calendar NONE' 'initial_state default'
        for limit in rt cpu fsize data stack core rss vmem; do
            printf '%s\n' "s_$limit INFINITY" "h_$limit INFINITY"
        done
    } > "$FOLDER/$1"
    qconf -Aq "$FOLDER/$1"
}

add_host_and_queues() {
    local host
    host=$(cat "$FOLDER/default/common/act_qmaster")
    {
        qconf -ah "$host" || true
        qconf -as "$host"
        printf '%s\n' "hostname $host" 'load_scaling NONE' 'complex_values NONE' 'user_lists NONE' 'xuser_lists NONE' \
            'projects NONE' 'xprojects NONE' 'usage_scaling NONE' 'report_variables NONE' > "$FOLDER/host"
        qconf -Ae "$FOLDER/host"
        printf '%s\n' 'group_name @allhosts' "hostlist $host" > "$FOLDER/group"
        qconf -Ahgrp "$FOLDER/group"
        printf '%s\n' 'pe_name smp' 'slots 999' 'user_lists NONE' 'xuser_lists NONE' 'start_proc_args NONE' \
            'stop_proc_args NONE' 'allocation_rule $pe_slots' 'control_slaves FALSE' 'job_is_first_task TRUE' \
            'urgency_slots min' 'accounting_summary FALSE' 'qsort_args NONE' > "$FOLDER/pe"
        qconf -Ap "$FOLDER/pe"
        add_queue short.q 0
        add_queue long.q 10
        qconf -ssconf > "$FOLDER/sched"
        set_values "$FOLDER/sched" schedule_interval 0:0:1 flush_submit_sec 1 flush_finish_sec 1 \
            load_adjustment_decay_time 0:0:0 job_load_adjustments NONE
        qconf -Msconf "$FOLDER/sched"
    } > "$FOLDER/log/qconf.log" 2>&1 || { cat "$FOLDER/log/qconf.log" >&2; die "the queues cannot be made"; }
}

# the last column of qstat -f is empty once the node reports to the master
queue_is_ready() { timeout 5 qstat -f -q short.q 2>/dev/null | grep -q 'short\.q@.*lx-amd64 *$'; }

nothing_runs() { [ -z "$(timeout 5 qstat -u '*' -s r 2> /dev/null)" ]; }

up() {
    need_root
    [ -x $LIB/qsub ] || die "no Grid Engine here: run deploy/batch/install.sh gridengine"
    need sge_qmaster sge_execd
    if [ -d "$FOLDER/qmaster" ] && queue_is_ready; then
        say "is up already (. $FOLDER/default/common/settings.sh)"
        return
    fi
    down
    port_closed "$PORT" || die "port $PORT is taken: set PORT to another one"
    make_job_user
    say "starting in $FOLDER"
    rm -rf "$FOLDER"
    lay_out
    fill_database > "$FOLDER/log/spool.log" 2>&1 || { cat "$FOLDER/log/spool.log" >&2; die "the database cannot be made"; }
    sge_qmaster > "$FOLDER/log/qmaster.out" 2>&1 || die "sge_qmaster does not start: see $FOLDER/qmaster/messages"
    wait_for 15 qconf -sh || { tail -n 20 "$FOLDER/qmaster/messages" >&2; die "sge_qmaster does not answer"; }
    add_host_and_queues
    sge_execd > "$FOLDER/log/execd.out" 2>&1 || die "sge_execd does not start"
    wait_for 20 queue_is_ready || { tail -n 20 "$FOLDER/qmaster/messages" >&2; die "the node does not report"; }
    say "is up (. $FOLDER/default/common/settings.sh)"
}

down() {
    [ -d "$FOLDER/qmaster" ] || { say "is not there"; return; }
    # with the daemons gone, their jobs and shepherds would live on
    port_closed "$PORT" || { timeout 10 qdel -u '*' > /dev/null 2>&1 || true; wait_for 3 nothing_runs || true; }
    stop_pids sge_execd $(pids_in "$FOLDER"/execd/*/execd.pid)
    stop_below sge_shepherd
    stop_pids sge_qmaster $(pids_in "$FOLDER/qmaster/qmaster.pid")
    say "is down"
}

case $ACTION in
    up) up ;;
    down) need_root; down ;;
    *) die "usage: gridengine.sh up|down [FOLDER]" ;;
esac
