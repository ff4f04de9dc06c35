#!/usr/bin/env bash
# A gate for any CI: audits a checkpoint, keeps the run's folder, and ends with the verdict's exit code.
#
#   AUDITOR_CHECKPOINT     what is audited: a folder, a safetensors file, or hf://org/name@COMMIT (40 hex digits: a branch may move)
#   AUDITOR_POLICY         a policy from the protected branch, never from what is audited
#   AUDITOR_POLICY_DIGEST  sha256:…, from 'auditor policy check'; the job ends with 2 if the policy is another
#   AUDITOR_OUT            folder of the run (default: audit), new or empty
#   AUDITOR_RESUME         "true": go on in a folder that an earlier job of yours left (see also AUDITOR_SEAL)
#   AUDITOR_SEAL           a file with a secret key of yours: the journal's lines are signed with it, and others are refused
#   AUDITOR_BASELINE       report.json of an earlier audit, outside of that folder, to say what changed
#   AUDITOR_PLUGIN         a plugin file from the protected branch
#   AUDITOR_CACHE          a folder that later jobs get again: pictures of bases, and how quick this machine is
#   AUDITOR_EXIT_ZERO      "true": FAIL and INCONCLUSIVE do not fail the job; everything else still does
#
# Exit codes: 0 PASS, 1 FAIL, 2 usage or policy, 3 INCONCLUSIVE, 4 refused checkpoint, 5 error. Only 0 means PASS.
set -euo pipefail

refuse() {
  echo "gate: $1" >&2
  exit 2
}
[[ -n ${AUDITOR_CHECKPOINT:-} ]] || refuse "name the checkpoint: AUDITOR_CHECKPOINT"
[[ -n ${AUDITOR_POLICY:-} ]] || refuse "name the policy: AUDITOR_POLICY"
[[ -n ${AUDITOR_POLICY_DIGEST:-} ]] || refuse "pin the policy: 'auditor policy check' prints its digest (AUDITOR_POLICY_DIGEST)"
out=${AUDITOR_OUT:-audit}
[[ $out != *[[:cntrl:]]* && $out != -* ]] || refuse "AUDITOR_OUT begins with a hyphen, or has a control character or a second line"
checkpoint=$AUDITOR_CHECKPOINT
repository='^hf://[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*@[0-9a-f]{40}(/[A-Za-z0-9._/-]+)?$'
if [[ ! $checkpoint =~ $repository ]]; then
  if [[ $checkpoint == hf:* ]]; then refuse "a repository on the Hub is audited at a commit: hf://org/name@COMMIT ('auditor fetch' prints it)"; fi
  [[ -e $checkpoint ]] || refuse "AUDITOR_CHECKPOINT is no folder or file here; a repository on the Hub is hf://org/name@COMMIT"
  if [[ $checkpoint != /* ]]; then checkpoint=./$checkpoint; fi # a path, whatever else it might be the name of
fi
if [[ -e $out && -n $(ls -A -- "$out") && ${AUDITOR_RESUME:-} != true ]]; then
  refuse "$out is not empty: what lies in it may have come with the workspace; remove it, or set AUDITOR_RESUME=true if it is yours"
fi

options=(--policy "$AUDITOR_POLICY" --policy-digest "$AUDITOR_POLICY_DIGEST" --out "$out" --report junit --report sarif)
options+=(--report github-summary --report github-annotations)
if [[ -n ${AUDITOR_BASELINE:-} ]]; then options+=(--baseline "$AUDITOR_BASELINE"); fi
if [[ -n ${AUDITOR_PLUGIN:-} ]]; then options+=(--plugin "$AUDITOR_PLUGIN"); fi
if [[ -n ${AUDITOR_SEAL:-} ]]; then options+=(--seal "$AUDITOR_SEAL"); fi

# what an earlier run said is nothing that this one has said
rm -f -- "$out"/{report.json,report.html,report.md,report.sarif,junit.xml,cells.csv,model-card.md,eval_results.yaml,attestation.json,badge.json} \
  "$out"/github-{summary.md,annotations.txt}

# names from a checkpoint or a policy must not become commands of the runner
token=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
if [[ -n ${GITHUB_ACTIONS:-} ]]; then echo "::stop-commands::$token"; fi
code=0
auditor audit "${options[@]}" -- "$checkpoint" || code=$?
if [[ -n ${GITHUB_ACTIONS:-} ]]; then echo "::$token::"; fi

verdict=NONE
if [[ -f $out/report.json ]]; then
  case $code in
    0) verdict=PASS ;;
    1) verdict=FAIL ;;
    3) verdict=INCONCLUSIVE ;;
    5) verdict=ERROR ;;
  esac
elif [[ $code == 0 ]]; then
  code=5 # whatever ended with 0, it was no audit
fi

if [[ -n ${GITHUB_STEP_SUMMARY:-} ]]; then
  if [[ $verdict != NONE && -f $out/github-summary.md ]]; then
    cat "$out/github-summary.md" >>"$GITHUB_STEP_SUMMARY"
  else
    echo "## No verdict: auditor ended with $code" >>"$GITHUB_STEP_SUMMARY"
  fi
fi
if [[ -n ${GITHUB_ACTIONS:-} && $verdict != NONE && -f $out/github-annotations.txt ]]; then cat "$out/github-annotations.txt"; fi
if [[ -n ${GITHUB_OUTPUT:-} ]]; then
  digest=""
  if [[ $verdict != NONE ]]; then digest=$(sed -n 's/^ *"root_digest": "\([0-9a-f]\{64\}\)",\{0,1\}$/\1/p' "$out/report.json" | head -n 1); fi
  printf 'verdict=%s\nexit-code=%s\nfolder=%s\nroot-digest=%s\n' "$verdict" "$code" "$out" "$digest" >>"$GITHUB_OUTPUT"
fi
if [[ ${AUDITOR_EXIT_ZERO:-} == true && ($verdict == FAIL || $verdict == INCONCLUSIVE) ]]; then
  echo "gate: $verdict, and AUDITOR_EXIT_ZERO is true: the job goes on"
  exit 0
fi
exit "$code"
