#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# eval and inspect.
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "$0")/lib.sh"
make_audio
make_dna
ok train -c audio.toml --set train.steps=30 --set train.eval_every=10
result=$(sed -n 's/.*"value": \([0-9.]*\).*/\1/p' run/result.json)

# Text for people: a line a metric, then the classes.
ok eval run
says out 'accuracy         '
grep -q '^count  *4$' out || die 'the test data are 4 clips'
grep -q '^high .* [0-9]  *[0-9]$' out || die 'a row of the confusion matrix a class'

# JSON for programs: the same numbers, and those of the training run.
ok eval run --json
[[ $(head -c 1 out) == '{' ]] || die 'one JSON object'
close "$(sed -n 's/.*"accuracy": \([0-9.]*\).*/\1/p' out)" "$result"
says out '"checkpoint": "run/checkpoints/'
silent err error

# A checkpoint by its own directory, a split, other data, chunks.
ok eval run/checkpoints/30 --split train --json
says out '"count": 12'
ok eval run --data clips.tsv --split valid --json
says out '"count": 4'
loss=$(sed -n 's/.*"loss": \([0-9.]*\).*/\1/p' out)
ok eval run --split valid --chunk 7 --json
close "$(sed -n 's/.*"loss": \([0-9.]*\).*/\1/p' out)" "$loss"
refuses '--split tset' 'choose train, valid or test' -- eval run --split tset
refuses 'nowhere' 'no such file or directory' -- eval nowhere
refuses 'none.tsv' 'no such file' -- eval run --data none.tsv
refuses 'the model is what the checkpoint holds' -- eval run --set model.d_model=16
exits 2 eval run --chunk 0
exits 2 eval
exits 2 evaluate run

# A language model; without test data it says that these are the validation data.
ok train -c lm.toml
ok eval lm
says err 'the run has no test data'
says out 'bits_per_symbol'
count_of() { awk '$1 == "together" { gsub(",", "", $2); print $2; exit }' out; }

# inspect: the counts of the table add up, and agree from run file to checkpoint to result.
for source in '-c lm.toml' lm lm/checkpoints/6; do
  # shellcheck disable=SC2086
  ok inspect $source --length 2000 --batch 3
  equal "$(count_of)" "$(sed -n 's/.*"parameters": \([0-9]*\).*/\1/p' lm/result.json)"
  equal "$(awk '/^embedding/, /^together/ { if ($1 == "together") exit; gsub(",", ""); sub(/\([0-9 ]*\)/, ""); sum += $2 } END { print sum }' out)" "$(count_of)"
  says out 'batch 3, length 2,000'
  says out 'every carry has one size at any length'
done
absent runs
ok inspect -c lm.toml --set 'model.blocks=["attention"]' --set model.attention.heads=2
says out 'its carry grows with the length'
