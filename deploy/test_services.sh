#!/bin/sh
# Installs what the whole test suite uses besides Python's packages, on Debian as root: chromium for the status page in
# a real browser, sshd for transfers and commands across SSH, libfaketime for hosts whose clocks disagree, real batch
# systems for the schedulers; and by npm PouchDB's server, for replication with a program of other people. Tests whose tool
# is missing are skipped with a sentence, so this is never required. What is there already costs no time.
set -eu
here=$(dirname "$0")
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "test services: not root on Debian: tests whose tools are missing will be skipped"
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
missing=""
command -v chromium >/dev/null 2>&1 || missing="$missing chromium"
[ -x /usr/sbin/sshd ] || missing="$missing openssh-server"
command -v sftp >/dev/null 2>&1 || missing="$missing openssh-client"
command -v rsync >/dev/null 2>&1 || missing="$missing rsync"
ls /usr/lib/*/faketime/libfaketime.so.1 >/dev/null 2>&1 || missing="$missing libfaketime"
if [ -n "$missing" ]; then
    echo "test services: installing$missing"
    apt-get -q -o DPkg::Lock::Timeout=300 update
    # shellcheck disable=SC2086 - a list of words
    apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends $missing
else
    echo "test services: chromium, sshd, sftp, rsync and libfaketime are there"
fi
bash "$here/batch/install.sh" slurm gridengine
# HTCondor is not in this Debian: it comes from the next one into a folder of its own, some 300 MB.
bash "$here/batch/install.sh" htcondor || echo "test services: no HTCondor: its tests will be skipped"
sh "$here/pouchdb/install.sh" || echo "test services: no PouchDB: its tests will be skipped"
