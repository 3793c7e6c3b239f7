#!/usr/bin/env bash
# Latency of a WebSocket echo at given message rates, as tcpkali measures it. See --help.
set -euo pipefail

usage() {
    cat <<'END'
benches/tcpkali.sh [URL [SECONDS [RATE...]]]

Loads a WebSocket echo server that runs already, such as

    percore serve echo --log-level off

with tcpkali: 100 and 1,000 connections, messages of 20, 125 and 1024 bytes, each at RATE messages a second of all
connections together (10000 and 50000). Prints a line for each: how many messages came back in a second, computed from
the bytes, and the latency of echoes in milliseconds. URL is ws://HOST:PORT/PATH (ws://127.0.0.1:8080/ws), each
measurement takes SECONDS (5). TASKSET in the environment is the list of cores that tcpkali may use, e.g. TASKSET=1.
END
}

case "${1:-}" in -h | --help) usage; exit 0 ;; esac
if ! command -v tcpkali >/dev/null; then
    echo "benches/tcpkali.sh: tcpkali is not on PATH. Build it from its source, satori-com/tcpkali on GitHub" >&2
    echo "(autoreconf -iv && ./configure && make; with a new glibc remove the include of sys/sysctl.h), and" >&2
    echo "put src/tcpkali on PATH." >&2
    exit 2
fi
url=${1:-ws://127.0.0.1:8080/ws} seconds=${2:-5}
case "$url" in
    ws://*) target=${url#ws://} ;;
    *) echo "benches/tcpkali.sh: '$url' is no URL of the form ws://HOST:PORT/PATH" >&2; exit 2 ;;
esac
case "$target" in */*) ;; *) target=$target/ ;; esac
shift $(($# < 2 ? $# : 2))
[ $# -gt 0 ] || set -- 10000 50000
pin=()
[ -z "${TASKSET:-}" ] || pin=(taskset -c "$TASKSET")
ulimit -n "$(ulimit -Hn)"
marker=@

# line CONNECTIONS SIZE RATE: measures, and prints a row.
line() {
    local connections=$1 size=$2 rate=$3 message header said received took latency
    # tcpkali takes the time of a message by the marker in it.
    message=$marker$(printf '%*s' $((size - ${#marker})) '' | tr ' ' x)
    header=$((size < 126 ? 2 : 4))
    if ! said=$("${pin[@]}" tcpkali --ws --workers 1 --connections "$connections" --connect-rate 5000 \
        --duration "$seconds" --message "$message" --message-rate "$(awk "BEGIN{print $rate / $connections}")" \
        --latency-marker "$marker" --latency-percentiles 50,95,99,99.9 "$target" 2>&1); then
        echo "benches/tcpkali.sh: $(tail -n 1 <<<"$said")" >&2
        return 1
    fi
    received=$(sed -n 's/^Total data received:.*(\([0-9]*\) bytes).*/\1/p' <<<"$said")
    took=$(sed -n 's/^Test duration: \([0-9.]*\) s.*/\1/p' <<<"$said")
    latency=$(sed -n 's/^Message latency at percentiles: \([0-9./-]*\) ms.*/\1/p' <<<"$said")
    # What the handshakes brought, of about 130 bytes each, is too little to show.
    printf '%11s %6s %8s %8.0f   %s\n' "$connections" "$size" "$rate" \
        "$(awk "BEGIN{print ${received:-0} / ($size + $header) / ${took:-1}}")" "${latency:--}"
}

echo "$(tcpkali --version), $url, $seconds s each"
echo "connections  bytes   sent/s   back/s   latency ms, 50/95/99/99.9 %"
for connections in 100 1000; do
    for size in 20 125 1024; do
        for rate in "$@"; do
            line "$connections" "$size" "$rate"
        done
    done
done
