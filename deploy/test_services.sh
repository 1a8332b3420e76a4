#!/bin/sh
# Installs what the whole test suite uses besides Python's packages, on Debian as root: chromium, for the tests of the
# status page in a real browser. Tests whose tool is missing are skipped with a sentence, so this is never required.
set -eu
if command -v chromium >/dev/null 2>&1; then
    echo "test services: chromium is there ($(command -v chromium))"
    exit 0
fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "test services: no chromium, and not root on Debian: the browser's tests will be skipped"
    exit 0
fi
echo "test services: installing chromium"
export DEBIAN_FRONTEND=noninteractive
apt-get -q -o DPkg::Lock::Timeout=300 update
apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends chromium
