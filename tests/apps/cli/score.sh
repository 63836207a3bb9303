#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# score: chunks agree, positions add up, logits are what the scores come from.
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "$0")/lib.sh"
make_dna
ok train -c lm.toml
{ fasta long 3000 5; fasta seven 7 6; } >x.fa
field() { awk -F '\t' -v name="$1" -v column="$2" '$1 == name { print $column }' "${3:-out}"; }

# One line a record; any chunk gives the same number.
ok score lm x.fa
equal "$(head -n 1 out)" $'name\tlength\tlog_likelihood_nats\tbits_per_symbol'
equal "$(cut -f 1,2 out | tail -n 2)" $'long\t3000\nseven\t7'
close "$(field long 4)" "$(awk -v ll="$(field long 3)" 'BEGIN { print -ll / log(2) / 3000 }')"
cp out whole
for chunk in 1 7 1000 65536; do
  ok score lm x.fa --chunk $chunk
  for name in long seven; do
    close "$(field $name 3)" "$(field $name 3 whole)"
    close "$(field $name 4)" "$(field $name 4 whole)"
  done
done
# From a pipe, too.
"$program" score lm - <x.fa >out 2>err || die 'a FASTA on standard input'
same out whole

# Positions add up to the total.
total_of_positions() { awk -F '\t' -v name="$1" '$1 == name { sum += $4 } END { printf "%.9g", sum }' out; }
ok score lm x.fa --per-position --chunk 1000
equal "$(grep -c '^long' out)" 3000
equal "$(field seven 2 | tr '\n' ' ')" '0 1 2 3 4 5 6 '
for name in long seven; do
  close "$(total_of_positions $name)" "$(field $name 3 whole)"
done
cp out positions

# Without a start token the first symbol is not scored.
ok score lm x.fa --no-bos
cp out without
equal "$(field seven 2)" 7
close "$(field seven 4)" "$(awk -v ll="$(field seven 3)" 'BEGIN { print -ll / log(2) / 6 }')"
ok score lm x.fa --no-bos --per-position
equal "$(field seven 2 | tr '\n' ' ')" '1 2 3 4 5 6 '
close "$(total_of_positions seven)" "$(field seven 3 without)"

# Logits (B, L, V), shorter records padded with 0; their softmax is the score.
ok score lm x.fa --logits logits.npy --chunk 100
same out whole
header=$(head -c 128 logits.npy | tr -cd "[:print:]")
[[ $header == *"'descr': '<f4'"*"'shape': (2,3000,5,)"* ]] || die "the header of logits.npy: $header"
equal "$(stat -c %s logits.npy)" $((128 + 4 * 2 * 3000 * 5))
od -An -v -w20 -t f4 -j $((128 + 4 * 3000 * 5)) -N $((4 * 7 * 5)) logits.npy >rows
field seven 3 positions | paste -d ' ' - rows >symbols
awk '{ sum = 0; for (i = 2; i <= 6; ++i) sum += exp($i); printf "%.9g\n", $($1 + 2) - log(sum) }' symbols >from_logits
paste from_logits <(field seven 4 positions) | while read -r a b; do close "$a" "$b"; done || exit 1
equal "$(od -An -v -t f4 -j $((128 + 4 * 3007 * 5)) logits.npy | tr -d ' \n0')" ''

# A bad record is named, the others are scored; no success.
{ fasta good 70 1; printf '>bad\nACGT12ACG\n'; fasta fine 90 2; } >mixed.fa
exits 1 score lm mixed.fa
equal "$(cut -f 1 out | tr '\n' ' ')" 'name good fine '
says err 'mixed.fa: record bad, position 5: wanted a base'

refuses 'is no language model' -- score "$(make_audio && ok train -c audio.toml >/dev/null && echo run)" x.fa
exits 1 score lm x.fa --logits none/l.npy
says err 'none/l.npy'
absent none
exits 2 score lm x.fa --chunk -5

# A model runs elsewhere than it was trained, and in another type: bfloat16 is a GPU's, float64 the CPU's.
cp -r lm elsewhere
sed -i 's/"dtype": "float32"/"dtype": "bfloat16"/' elsewhere/checkpoints/6/config.json
exits 1 score elsewhere x.fa
says err 'dtype = "bfloat16" needs device = "cuda"; on the CPU use float32'
ok score elsewhere x.fa --dtype float32
same out whole
ok train -c lm.toml --dtype float64 --set run.dir=exact
ok score exact x.fa
cp out exactly
ok score exact x.fa --dtype float32 --device cpu
close "$(field long 3)" "$(field long 3 exactly)"
exits 1 score lm x.fa --device gpu
says err 'device = "gpu" is not known'
