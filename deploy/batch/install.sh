#!/usr/bin/env bash
# Installs real batch systems on Debian 12, as root, for the tests of the schedulers and for trying things out:
#   deploy/batch/install.sh [slurm] [gridengine] [htcondor]      (without words: slurm and gridengine)
# Debian starts none of the daemons in a container; slurm.sh, gridengine.sh and htcondor.sh beside this file do.
set -euo pipefail
SYSTEM=install
. "$(dirname "$0")/common.sh"
need_root
command -v apt-get >/dev/null || die "this is not Debian: install the batch systems by hand"
export DEBIAN_FRONTEND=noninteractive
[ $# -gt 0 ] || set -- slurm gridengine

# A daemon that a package would start on its own port and configuration is in the way of ours.
if [ ! -e /usr/sbin/policy-rc.d ]; then
    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
    chmod +x /usr/sbin/policy-rc.d
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
fi

packages=()
for system in "$@"; do
    case $system in
        slurm)
            command -v slurmctld >/dev/null && command -v slurmdbd >/dev/null && command -v mariadbd >/dev/null \
                || packages+=(slurm-wlm slurm-client munge slurmdbd slurm-wlm-mysql-plugin mariadb-server mariadb-client) ;;
        gridengine)
            command -v sge_qmaster >/dev/null && command -v sge_execd >/dev/null && command -v qsub >/dev/null \
                || packages+=(gridengine-master gridengine-exec gridengine-client) ;;
        htcondor)
            command -v mmdebstrap >/dev/null && command -v bwrap >/dev/null || packages+=(mmdebstrap bubblewrap) ;;
        *) die "unknown batch system $system: choose slurm, gridengine or htcondor" ;;
    esac
done

if [ ${#packages[@]} -gt 0 ]; then
    say "installing ${packages[*]}"
    apt-get -q -o DPkg::Lock::Timeout=300 update
    apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends "${packages[@]}"
else
    say "everything is there"
fi

# Debian 12 has no HTCondor: Debian 13's goes into a folder of its own, and bubblewrap shows it to the daemons.
case " $* " in *" htcondor "*)
    root=${CONDOR_ROOT:-/var/lib/batch-systems/trixie}
    if [ -x "$root/usr/sbin/condor_master" ]; then
        say "HTCondor is there ($root)"
    else
        # the mirror that this machine uses already; a list that is not there is no error
        mirror=$( { cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null || true; } \
            | sed -n 's/^URIs: *//p; s/^deb \(\[[^]]*\] \)\?\(http[^ ]*\) .*/\2/p' | sed '/security/d' | sed -n 1p)
        [ -n "$mirror" ] || die "no Debian mirror in /etc/apt/sources.list*: cannot fetch Debian 13's HTCondor"
        say "installing HTCondor from Debian 13 into $root (about 310 MB)"
        mkdir -p "$(dirname "$root")"
        rm -rf "$root.part"
        mmdebstrap --quiet --variant=minbase --mode=root --include=minicondor,condor,bubblewrap \
            --aptopt='APT::Install-Recommends "false"' trixie "$root.part" \
            "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror%% *} trixie main"
        mkdir -p "$root.part/host"
        mv "$root.part" "$root"
    fi ;;
esac
