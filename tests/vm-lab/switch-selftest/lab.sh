#!/usr/bin/env bash
# All that the simulated switch promises (tests/eswitch-sim/README.md). A minute or two: not in CI.
[[ -d /run/vm ]] || { echo 'SKIP: only in the VM: tests/vm/run switch-selftest' && exit 77; }
exec bash "$(dirname "$0")/../../eswitch-sim/selftest.sh"
