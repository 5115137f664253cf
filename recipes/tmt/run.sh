#!/bin/sh
# tmt takes results.yaml from here (result: custom); its status counts only if there is none.
set -u
cd "$(dirname "$0")/../.." || exit 1
conform=${CONFORM:-./conform}
results=$TMT_TEST_DATA/results.yaml
case " ${CONFORM_OPTIONS:-} " in
*" --strict "* | *" --should "* | *" --known"* | *" --cases"*)
    echo "what judges goes to CONFORM_JUDGING: results.yaml is judged as well" >&2
    exit 64
    ;;
esac
# shellcheck disable=SC2086 # CONFORM may be a command with words
$conform run -k "${CONFORM_SELECT:-}" ${CONFORM_KERNEL:+--kernel "$CONFORM_KERNEL"} ${CONFORM_OPTIONS:-} \
    ${CONFORM_JUDGING:-} --out "$TMT_TEST_DATA/run"
status=$?
# The logs of a result are named relative to the run's folder.
# shellcheck disable=SC2086
$conform report "$TMT_TEST_DATA/run" ${CONFORM_JUDGING:-} --format tmt --salvage --to "$results"
# A run that was refused, or killed, has less to tell than was asked for, or nothing.
if [ "$status" -ge 64 ] || [ ! -s "$results" ]; then
    printf '%s\n' '- name: /conform/run' '  result: error' "  note: [the status of the run is $status]" >>"$results"
fi
mv "$TMT_TEST_DATA/run"/* "$TMT_TEST_DATA/"
