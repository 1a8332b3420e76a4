#!/bin/sh
# Installs what the comparisons in benchmarks/ use besides Python's packages, on Debian as root: Redis, the broker of
# Celery, dramatiq and huey. The orchestrator needs none of it. The benchmarks start a Redis of their own, on a free port
# and in a folder of their own; the one that the package would start is kept from starting.
set -eu
if command -v redis-server >/dev/null 2>&1; then
    echo "benchmark services: Redis is there"
    exit 0
fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "benchmark services: not root on Debian: install redis-server by hand" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
if [ ! -e /usr/sbin/policy-rc.d ]; then
    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
    chmod +x /usr/sbin/policy-rc.d
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
fi
echo "benchmark services: installing redis-server"
apt-get -q -o DPkg::Lock::Timeout=300 update
apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends redis-server
