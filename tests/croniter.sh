#!/bin/sh
# Compares the calendar with croniter (from PyPI) on what both know, around every change of the clocks of every zone, 1970 to 2037.
#
#   tests/croniter.sh [COUNT]          COUNT expressions, default 20000; 100000 and more reach every change at least once
#
# SEED repeats a run. Passes with a loud note where Python or PyPI can't be had. tests/croniter_compare.py lists the known differences.
set -eu

count=${1:-20000}
seed=${SEED:-$(date +%s)}
root=$(cd "$(dirname "$0")/.." && pwd)

skip() {
    echo "SKIPPED: the comparison with croniter did not run: $1" >&2
    exit 0
}

command -v python3 >/dev/null || skip "there is no python3"
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

(cd "$root" && cargo build --quiet -p rota-calendar --example instants)
instants=${CARGO_TARGET_DIR:-$root/target}/debug/examples/instants

# The same time-zone data: 2026a is 2026.1 on PyPI.
version=$("$instants" --version)
letter=$(printf '%s' "$version" | cut -c5)
number=$(($(printf '%d' "'$letter") - 96))
data="tzdata==$(printf '%s' "$version" | cut -c1-4).$number"

python3 -m venv "$dir/venv" >"$dir/pip.log" 2>&1 || skip "python3 can't make a virtual environment"
"$dir/venv/bin/pip" install --quiet 'croniter>=7,<8' "$data" >>"$dir/pip.log" 2>&1 ||
    skip "PyPI can't be reached or lacks croniter 7 or $data: $(tail -n 1 "$dir/pip.log")"

# The system's own data must not be used.
PYTHONTZPATH='' nice -n 19 "$dir/venv/bin/python" "$root/tests/croniter_compare.py" "$instants" "$count" "$seed"
