#!/bin/sh
# tmt takes results.yaml from here (result: custom); its status counts only if there is none.
set -u
cd "$(dirname "$0")/../.." || exit 1
conform=${CONFORM:-./conform}
# shellcheck disable=SC2086 - CONFORM may be a command with words
$conform run -k "${CONFORM_SELECT:-}" --kernel "${CONFORM_KERNEL:-debian/trixie}" ${CONFORM_OPTIONS:-} \
    --out "$TMT_TEST_DATA/run"
# The logs of a result are named relative to the run's folder.
# shellcheck disable=SC2086
$conform report "$TMT_TEST_DATA/run" ${CONFORM_CASES:+--cases "$CONFORM_CASES"} --format tmt --salvage \
    --to "$TMT_TEST_DATA/results.yaml"
mv "$TMT_TEST_DATA/run"/* "$TMT_TEST_DATA/"
