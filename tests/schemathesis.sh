#!/bin/sh
# Fuzzes the REST interface of a running server against its own description with schemathesis (from PyPI).
#
#   tests/schemathesis.sh [ROTA]          ROTA is the binary; by default it is built
#
# SECONDS_MAX bounds the run (default 120), SEED repeats one. Passes with a loud note where Python or PyPI can't be had, fails on any
# finding: a 5xx, an answer that the description does not promise, a wrong input that is taken, a right one that is refused.
set -eu

version='schemathesis>=4.32,<5'
seconds=${SECONDS_MAX:-120}
seed=${SEED:-$(date +%s)}
root=$(cd "$(dirname "$0")/.." && pwd)

skip() {
    echo "SKIPPED: schemathesis did not run: $1" >&2
    exit 0
}

command -v python3 >/dev/null || skip "there is no python3"

dir=$(mktemp -d)
server=''
worker=''
finish() {
    for process in $worker $server; do
        kill "$process" 2>/dev/null || true
    done
    for process in $worker $server; do
        wait "$process" 2>/dev/null || true
    done
    rm -rf "$dir"
}
trap finish EXIT
trap 'exit 130' INT TERM

python3 -m venv "$dir/venv" >"$dir/pip.log" 2>&1 || skip "python3 can't make a virtual environment"
"$dir/venv/bin/pip" install --quiet "$version" >>"$dir/pip.log" 2>&1 ||
    skip "PyPI can't be reached or does not have $version: $(tail -n 1 "$dir/pip.log")"

rota=${1:-}
if [ -z "$rota" ]; then
    (cd "$root" && cargo build --quiet -p rota)
    rota=${CARGO_TARGET_DIR:-$root/target}/debug/rota
fi

port=$("$dir/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
url=http://127.0.0.1:$port

# Commands made up by a fuzzer are not run: the only node takes no programs, and reaches no internal address.
"$rota" server --data "$dir/server" --listen "127.0.0.1:$port" >"$dir/server.log" 2>&1 &
server=$!
"$rota" worker --server "$url" --data "$dir/worker" --name fuzz --cpus 4 --no-commands >"$dir/worker.log" 2>&1 &
worker=$!

# A schema says what a request looks like, not whether a cursor was ever given out or a setting suits another one: such requests may
# be refused with 422, and lists with 400; output may be gone (410), a key at another revision (412), and a queue full because of a limit that it was given (429). Nothing
# else that looks right may be refused.
cat >"$dir/schemathesis.toml" <<'TOML'
[checks.positive_data_acceptance]
expected-statuses = ["2xx", 404, 409, 410, 412, 422, 429]

[[operations]]
include-operation-id = ["listAudit", "listJobs", "listJobEvents", "listTasks", "listNodes", "listQueues", "listKeys", "listLocks", "listSessions"]
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", 400, 404, 410]

# Commands wait for ever, since no node takes them: whoever follows their output does so, too.
[[operations]]
include-operation-id = ["taskLogs", "jobLogs"]
[operations.parameters]
"query.follow" = "false"
TOML

# The streams of events and changes have no end; whoever waits for it waits for ever. Their own tests read them.
result=0
"$dir/venv/bin/st" --config-file "$dir/schemathesis.toml" run "$url/v1/openapi.json" --wait-for-schema 30 \
    --phases examples,coverage,fuzzing,stateful --checks all \
    --exclude-operation-id followEvents --exclude-operation-id watchKeys \
    --max-time "$seconds" --seed "$seed" --request-timeout 10 --continue-on-failure --no-color || result=$?

for process in "$server" "$worker"; do
    if ! kill -0 "$process" 2>/dev/null; then
        echo "the server or its worker ended during the run:" >&2
        tail -n 20 "$dir/server.log" "$dir/worker.log" >&2
        exit 1
    fi
done
if [ "$result" -ne 0 ]; then
    echo "findings; repeat with SEED=$seed. The end of the server's log:" >&2
    tail -n 20 "$dir/server.log" >&2
fi
exit "$result"
