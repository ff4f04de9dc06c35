#!/usr/bin/env bash
# A gate for any CI: audits a checkpoint, keeps the run's folder, and ends with the verdict's exit code.
#
#   AUDITOR_CHECKPOINT     what is audited: a folder, a safetensors file, hf://org/name@commit
#   AUDITOR_POLICY         a policy from the protected branch, never from what is audited
#   AUDITOR_POLICY_DIGEST  sha256:…, from 'auditor policy check'; the job ends with 2 if the policy is another
#   AUDITOR_OUT            folder of the run (default: audit); the same folder goes on after an interruption
#   AUDITOR_BASE           the checkpoint before erasure, if not the policy's
#   AUDITOR_BASELINE       report.json of an earlier audit, to say what changed
#   AUDITOR_PLUGIN         a plugin file from the protected branch
#   AUDITOR_EXIT_ZERO      "true": report only; the job does not fail on a verdict, but still on errors
#
# Exit codes: 0 PASS, 1 FAIL, 2 usage or policy, 3 INCONCLUSIVE, 4 refused checkpoint, 5 error. Only 0 means PASS.
set -euo pipefail

: "${AUDITOR_CHECKPOINT:?name the checkpoint to audit}"
: "${AUDITOR_POLICY:?name the policy}"
: "${AUDITOR_POLICY_DIGEST:?pin the policy: auditor policy check prints its digest}"
out=${AUDITOR_OUT:-audit}

options=(--policy "$AUDITOR_POLICY" --policy-digest "$AUDITOR_POLICY_DIGEST" --out "$out" --report junit --report sarif)
if [[ -n ${GITHUB_ACTIONS:-} ]]; then options+=(--report github-summary --report github-annotations); fi
if [[ -n ${AUDITOR_BASE:-} ]]; then options+=(--base "$AUDITOR_BASE"); fi
if [[ -n ${AUDITOR_BASELINE:-} ]]; then options+=(--baseline "$AUDITOR_BASELINE"); fi
if [[ -n ${AUDITOR_PLUGIN:-} ]]; then options+=(--plugin "$AUDITOR_PLUGIN"); fi
if [[ ${AUDITOR_EXIT_ZERO:-} == true ]]; then options+=(--exit-zero); fi

rm -f "$out/github-summary.md" "$out/github-annotations.txt" # a verdict of an earlier run is none of this one
code=0
auditor audit "${options[@]}" -- "$AUDITOR_CHECKPOINT" || code=$?

if [[ -n ${GITHUB_STEP_SUMMARY:-} ]]; then
  if [[ -f $out/github-summary.md ]]; then
    cat "$out/github-summary.md" >>"$GITHUB_STEP_SUMMARY"
  else
    echo "## No verdict: auditor ended with $code" >>"$GITHUB_STEP_SUMMARY"
  fi
fi
if [[ -f $out/github-annotations.txt ]]; then cat "$out/github-annotations.txt"; fi
if [[ -n ${GITHUB_OUTPUT:-} ]]; then
  verdict=$(auditor show "$out" --format json 2>/dev/null | python3 -c 'import json, sys; print(json.load(sys.stdin)["verdict"]["outcome"])' || echo NONE)
  case $code in 2 | 4 | 5 | 130 | 143) verdict=NONE ;; esac
  printf 'verdict=%s\nexit-code=%s\nfolder=%s\n' "$verdict" "$code" "$out" >>"$GITHUB_OUTPUT"
fi
exit "$code"
