#!/bin/sh
# Installs PouchDB's server by npm, from npm's packages, below ~/.cache/couch-orchestrator/pouchdb: an implementation of
# CouchDB's replication protocol by other people, which tests replicate with in both directions. Nothing else uses it.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder="${XDG_CACHE_HOME:-$HOME/.cache}/couch-orchestrator/pouchdb"
if [ -e "$folder/installed" ] && cmp -s "$here/package.json" "$folder/package.json"; then
    echo "pouchdb: it is there"
    exit 0
fi
if ! command -v npm >/dev/null 2>&1; then
    echo "pouchdb: npm is missing (Debian: apt-get install npm)" >&2
    exit 1
fi
echo "pouchdb: installing into $folder"
mkdir -p "$folder"
rm -f "$folder/installed"
cp "$here/package.json" "$folder/package.json"
cd "$folder"
npm install --no-audit --no-fund --ignore-scripts --omit=optional --loglevel=error
touch "$folder/installed"
