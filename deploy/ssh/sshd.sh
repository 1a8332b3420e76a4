#!/usr/bin/env bash
# A real sshd on this machine's loopback address, for the tests of transports and transfers and for trying things out.
# Needs root, since it logs in another user's account, as at a computing centre.
#   deploy/ssh/sshd.sh up [FOLDER] [--sftp-only] [--password]     sshd.sh down [FOLDER]
# --sftp-only: the account gets no shell (ForceCommand internal-sftp).  --password: logins by password too; the account's
# new random password stands in FOLDER/password.
# FOLDER (default /var/tmp/orchestrator-sshd) then holds: id_ed25519 (the client's key), known_hosts, host_ed25519,
# sshd.pid, log.  Environment: PORT (10022), SSH_USER (sshtest).  Running it twice starts a new server on the same keys.
set -euo pipefail

say() { printf 'sshd.sh: %s\n' "$*"; }
die() { say "$@" >&2; exit 1; }
usage() { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }

action=${1:-}
shift || usage
folder=/var/tmp/orchestrator-sshd
sftp_only=no
password=no
while [ $# -gt 0 ]; do
    case $1 in
        --sftp-only) sftp_only=yes ;;
        --password) password=yes ;;
        -*) usage ;;
        *) folder=$1 ;;
    esac
    shift
done
case $folder in /*) ;; *) folder=$PWD/$folder ;; esac
case $folder in *[!A-Za-z0-9_./-]*) die "the folder's name may hold only letters, digits and . _ - /: $folder" ;; esac
port=${PORT:-10022}
user=${SSH_USER:-sshtest}
sshd=$(PATH=$PATH:/usr/sbin:/sbin command -v sshd) || die "no sshd here: apt-get install openssh-server"

# Only a process that runs our own configuration: a number in a stale file may belong to somebody else by now.
ours() { tr '\0' ' ' < "/proc/$1/cmdline" 2>/dev/null | grep -qF "$folder/sshd_config"; }

down() {
    local pid tenth
    [ -s "$folder/sshd.pid" ] || return 0
    pid=$(cat "$folder/sshd.pid")
    if ours "$pid"; then
        # the sessions are its children, and go on without it
        pkill -KILL -P "$pid" 2>/dev/null || true
        kill "$pid"
        for (( tenth = 0; tenth < 50; tenth++ )); do ours "$pid" || break; sleep 0.1; done
    fi
    rm -f "$folder/sshd.pid"
}

up() {
    local tenth
    [ "$(id -u)" = 0 ] || die "must run as root: it logs in another user's account"
    down
    id "$user" >/dev/null 2>&1 || { useradd -m -s /bin/bash "$user"; say "made the account $user"; }
    # "!" means "account locked", and sshd without PAM then refuses keys as well
    if [ "$password" = no ] && [ "$(getent shadow "$user" | cut -d: -f2)" = '!' ]; then usermod -p '*' "$user"; fi
    mkdir -p /run/sshd "$folder"
    chmod 755 /run/sshd "$folder"
    [ -e "$folder/host_ed25519" ] || ssh-keygen -q -t ed25519 -N '' -C test-host -f "$folder/host_ed25519"
    [ -e "$folder/id_ed25519" ] || ssh-keygen -q -t ed25519 -N '' -C test-client -f "$folder/id_ed25519"
    install -m 644 "$folder/id_ed25519.pub" "$folder/authorized_keys"
    printf '[127.0.0.1]:%s %s\n' "$port" "$(cut -d' ' -f1,2 "$folder/host_ed25519.pub")" > "$folder/known_hosts"
    if [ "$password" = yes ]; then
        (umask 077; head -c 18 /dev/urandom | base64 > "$folder/password")
        printf '%s:%s\n' "$user" "$(cat "$folder/password")" | chpasswd
    fi
    cat > "$folder/sshd_config" <<CONF
Port $port
ListenAddress 127.0.0.1
HostKey $folder/host_ed25519
PidFile $folder/sshd.pid
AuthorizedKeysFile $folder/authorized_keys
StrictModes no
AllowUsers $user
PubkeyAuthentication yes
PasswordAuthentication $password
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PrintMotd no
X11Forwarding no
MaxStartups 100
Subsystem sftp internal-sftp
CONF
    if [ "$sftp_only" = yes ]; then echo 'ForceCommand internal-sftp' >> "$folder/sshd_config"; fi
    "$sshd" -t -f "$folder/sshd_config"
    "$sshd" -f "$folder/sshd_config" -E "$folder/log"
    for (( tenth = 0; tenth < 100; tenth++ )); do
        if [ -s "$folder/sshd.pid" ] && (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            say "up: $user@127.0.0.1 port $port, key $folder/id_ed25519, known hosts $folder/known_hosts"
            return 0
        fi
        sleep 0.05
    done
    die "sshd does not answer on port $port: $(tail -n 3 "$folder/log")"
}

case $action in
    up) up ;;
    down) down ;;
    *) usage ;;
esac
