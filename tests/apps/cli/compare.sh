#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# compare: variants and seeds, its files, interrupted and gone on with.
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "$0")/lib.sh"
make_audio
cp audio.toml compare.toml
cat >>compare.toml <<'END'
[compare]
match = "parameters"
seeds = [1, 2]
variants.mamba     = { model.blocks = ["mamba gated_mlp"] }
variants.attention = { model.blocks = ["attention gated_mlp"], model.attention.heads = 2 }
END
long=(compare -c compare.toml --set train.steps=60 --set train.save_every=10 --set train.eval_every=30)
numbers() { cut -d , -f 1-5 "$1"; }

ok "${long[@]}" --set run.dir=whole
says out 'parameters matched within 2 %'
grep -q '^attention ' out || die 'a row a variant'
equal "$(cut -d , -f 1,2 whole/compare.csv | tr '\n' ' ')" 'variant,seed mamba,1 mamba,2 attention,1 attention,2 '
equal "$(head -n 1 whole/compare.csv)" \
  'variant,seed,parameters,loss,test accuracy,tokens_per_second,peak_memory_bytes,seconds'
awk -F , 'NR == 2 { first = $3 } NR > 1 && ($3 > 1.02 * first || $3 < 0.98 * first) { exit 1 }' whole/compare.csv ||
  die 'parameters agree within 2 %'
[[ $(sed -n 2p whole/compare.csv | cut -d , -f 4) != "$(sed -n 3p whole/compare.csv | cut -d , -f 4)" ]] ||
  die 'two seeds have one loss'

# The page stands alone: nothing in it is fetched.
there whole/compare.html
! grep -Eiq '(src|href|action)[[:space:]]*=[[:space:]]*["'\'']?[[:space:]]*(https?:)?//|url\([[:space:]]*["'\'']?(https?:)?//|@import|XMLHttpRequest|fetch\(' \
  whole/compare.html || die 'compare.html refers to something outside'
for variant in mamba attention; do
  says whole/compare.html $variant
  there whole/$variant/seed-2/result.json
done

# Again: all are finished, the same table.
cp whole/compare.csv csv
ok "${long[@]}" --set run.dir=whole
same whole/compare.csv csv
equal "$(grep -c 'is finished at step 60' err)" 4

# Stopped in the second run, then gone on with.
"$program" "${long[@]}" --set run.dir=parts >out 2>err &
pid=$!
for ((i = 0; i < 3000; ++i)); do
  [[ -e parts/mamba/seed-2/metrics.jsonl ]] && break
  sleep 0.01
done
wait_for_steps parts/mamba/seed-2/metrics.jsonl 20 $pid
kill -INT $pid
wait $pid
equal $? 130
says err 'of mamba seed 2; 1 of 4 runs are done. The same command goes on from there.'
absent parts/compare.csv
ok "${long[@]}" --set run.dir=parts
numbers parts/compare.csv >a
numbers whole/compare.csv >b
same a b

refuses 'compare.variants is empty' -- compare -c audio.toml
refuses 'a/b' 'names a directory' -- compare -c compare.toml --set 'compare.variants={ "a/b" = { train.steps = 3 } }'
# A mistake in the last variant comes out before the first is trained.
refuses 'unknown key' 'model.d_modle' -- compare -c compare.toml --set run.dir=typo --set 'compare.variants={ a = { train.steps = 3 }, b = { model.d_modle = 3 } }'
absent typo
refuses 'heads = 3 does not divide' -- compare -c compare.toml --set run.dir=late --set 'compare.match="none"' \
  --set 'compare.variants={ a = { train.steps = 3 }, b = { model.blocks = ["attention"], model.attention.heads = 3 } }'
absent late
