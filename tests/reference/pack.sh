#!/bin/sh
# Packs a folder of reference data into the archive beside this script, the same bytes for the same files:
#     tests/reference/pack.sh FOLDER
set -eu
archive="$(cd "$(dirname "$0")" && pwd)/data.tar.gz"
cd "$1"
tar --sort=name --owner=0 --group=0 --numeric-owner --mode=0644 --mtime='2000-01-01 00:00Z' --format=ustar \
    -cf - ./*.json ./*.safetensors | gzip -9n > "$archive"
ls -l "$archive"
