#!/usr/bin/env bash
# The lab `feedback` in set-up `beside`: zebra has its own route in the kernel, and still waits for ours.
# shellcheck disable=SC2034  # read by the other lab
FEEDBACK_SETUP=beside
. "$(dirname "$0")/../feedback/lab.sh"
