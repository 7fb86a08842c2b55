#!/bin/sh
# The challenge's call: questions below /workspace/inputs -> /workspace/outputs/predictions.json, without a network.
#
# What was answered before is kept in predictions.jsonl beside it: started again, it goes on where it was stopped.
# Exit codes: 0 all answered; 2 a folder or model is missing; 3 questions that cannot be read; 4 some questions have no
# answer (predictions.jsonl says why): it is empty in predictions.json, which is missing where nothing could be answered;
# 130 stopped, without predictions.json: MEDVL_OPTIONS=--ask-nothing writes one from the answers so far.
set -eu

inputs=${MEDVL_INPUTS:-/workspace/inputs}
outputs=${MEDVL_OUTPUTS:-/workspace/outputs}
models=${MEDVL_MODELS:-/workspace/models}
profiles=${MEDVL_PROFILES:-$models/profiles.yaml}
export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 TRANSFORMERS_OFFLINE=1

refuse() {
    printf 'predict.sh: %s\n' "$1" >&2
    exit 2
}

[ -d "$inputs" ] || refuse "there is no folder $inputs; mount the questions: --volume \"\$PWD/inputs:$inputs:ro\""
[ -n "$(find -L "$inputs" -type f -name '*.json' -print -quit)" ] ||
    refuse "no question file (*.json) below $inputs; mount the challenge's tree or one of its folders there"
[ -f "$models/base/config.json" ] ||
    refuse "no model: $models/base/config.json is not there; mount the models (docker/README.md) or bake them in"
[ -z "${MEDVL_PROFILES:-}" ] || [ -f "$profiles" ] || refuse "there is no file $profiles (MEDVL_PROFILES)"
mkdir -p "$outputs" 2>/dev/null || true
probe=$outputs/.predict.$$
(: >"$probe") 2>/dev/null ||
    refuse "user $(id -u) cannot write to $outputs; make it writable, or run with --user \"\$(id -u):\$(id -g)\""
rm -f "$probe"

set -- --data "$inputs" --model "$models/base" \
    --out "$outputs/predictions.jsonl" --challenge "$outputs/predictions.json"
if [ -d "$models/adapters" ]; then
    set -- "$@" --adapters "$models/adapters"
else
    echo "predict.sh: no $models/adapters, the base model answers" >&2
fi
if [ -d "$models/router" ]; then
    set -- "$@" --router "$models/router"
else
    echo "predict.sh: no $models/router, questions are routed by rules alone" >&2
fi
if [ -f "$profiles" ]; then
    set -- "$@" --profiles "$profiles"
fi
# Split into words on purpose: further options of medvl predict, e.g. "--batch-size 4".
# shellcheck disable=SC2086
exec medvl predict "$@" ${MEDVL_OPTIONS:-}
