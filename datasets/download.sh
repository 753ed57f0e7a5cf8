#!/usr/bin/env bash
# Downloads one of the paper's data sets (Amazon 2018, 5-core reviews and item titles) into datasets/raw/.
#   bash datasets/download.sh cloth|movie|music|sport
# A download that was cut off goes on where it stopped. A file gets its name once its size and its gzip data are checked, and is the
# one that raw/SHA256SUMS records from an earlier download, if there was one: the publisher gives sizes, but no digests.
set -euo pipefail
cd "$(dirname "$0")"

BASE_URL="${SLMREC_DATA_URL:-https://jmcauley.ucsd.edu/data/amazon_v2}"
SUMS=raw/SHA256SUMS

source names.sh
NAME="$(amazon_name "${1:-}")" || { echo "usage: bash datasets/download.sh cloth|movie|music|sport" >&2; exit 2; }

fail() {
    echo "error: $*" >&2
    exit 1
}

case "$BASE_URL" in
    https://*) PROTOCOLS='=https' ;;  # of redirections, too
    http://127.0.0.1[:/]* | http://localhost[:/]*) PROTOCOLS='=http' ;;
    *) fail "SLMREC_DATA_URL=$BASE_URL: only https:// is taken (http:// from this machine)" ;;
esac

sha256_of() {
    if command -v sha256sum > /dev/null; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d ' ' -f 1
}

check_or_record() {  # check_or_record FILE NAME: refuses another file than the one that was downloaded under this name before
    local digest recorded
    digest="$(sha256_of "$1")"
    recorded="$(awk -v name="$2" '$2 == name { print $1 }' "$SUMS" 2> /dev/null || true)"
    [ -n "$recorded" ] || echo "$digest  $2" >> "$SUMS"
    [ "${recorded:-$digest}" = "$digest" ] || fail "$1: not the file that $SUMS records for $2 (sha256 $digest); remove one of them"
}

size_of() {
    if [ -f "$1" ]; then wc -c < "$1" | tr -d " "; else echo 0; fi  # on macOS there are blanks before the number
}

announced_size() {  # the Content-Length that the server gives for a file, or nothing
    curl --proto "$PROTOCOLS" --silent --show-error --fail --location --head "$1" | tr -d '\r' |
        awk 'tolower($1) == "content-length:" { size = $2 } END { print size }'
}

fetch() {  # fetch URL FILE: on from the bytes that FILE has, or from the start where the server cannot do that
    local status=0
    curl --proto "$PROTOCOLS" --fail --location --retry 5 --continue-at - --output "$2" "$1" || status=$?
    if [ "$status" = 33 ]; then
        echo "The server cannot go on from the middle, starting again" >&2
        rm -f "$2"
        status=0
        curl --proto "$PROTOCOLS" --fail --location --retry 5 --output "$2" "$1" || status=$?
    fi
    [ "$status" = 0 ] || fail "$1: the download stopped (curl status $status); start again to go on"
}

download() {  # download PATH_ON_THE_SERVER
    local url="$BASE_URL/$1" file="raw/${1##*/}" size
    if [ -f "$file" ]; then
        echo "$file: already here"
        return
    fi
    size="$(announced_size "$url")" || fail "$url: the server does not give this file"
    [ -n "$size" ] || fail "$url: the server does not say how long the file is"
    if [ "$(size_of "$file.partial")" -gt "$size" ]; then
        rm "$file.partial"
    fi
    if [ "$(size_of "$file.partial")" != "$size" ]; then
        echo "$url ($size bytes)"
        fetch "$url" "$file.partial"
    fi
    if [ "$(size_of "$file.partial")" != "$size" ]; then
        fail "$file.partial: $(size_of "$file.partial") bytes where the server announced $size; start again to go on"
    fi
    if ! gzip -t "$file.partial"; then
        rm "$file.partial"
        fail "$url: not an intact gzip file; it was removed"
    fi
    check_or_record "$file.partial" "${file##*/}"
    mv "$file.partial" "$file"
    echo "$file: complete"
}

mkdir -p raw
download "categoryFilesSmall/${NAME}_5.json.gz"
download "metaFiles2/meta_${NAME}.json.gz"
