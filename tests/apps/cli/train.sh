#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# train: a whole run, again, with overrides, from --help-config.
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "$0")/lib.sh"
make_audio

# A run leaves what the documents promise.
ok train -c audio.toml
says out 'test accuracy '
says err '12 clips of 2 classes; 4 for validation; 4 for the test'
for file in config.toml metrics.jsonl result.json checkpoints/12/{config.json,model.safetensors,optimizer.safetensors,state.json}; do
  there run/$file
done
equal "$(logged_steps run/metrics.jsonl | tr '\n' ' ')" '1 2 3 4 5 6 7 8 9 10 11 12 '
equal "$(grep -c '"valid"' run/metrics.jsonl)" 2
says run/result.json '"step": 12'

# The same command again: finished, the same result, nothing trained.
cp out first
cp run/metrics.jsonl log
ok train -c audio.toml
says err 'run is finished at step 12'
same out first
same run/metrics.jsonl log

# More steps are more training of the same run; overrides apply in order.
ok train -c audio.toml --set train.steps=13 --set train.steps=14
says err 'going on at step 12'
equal "$(logged_steps run/metrics.jsonl | tail -n 1)" 14
there run/checkpoints/14

# The run's own config.toml is a run file.
ok train -c run/config.toml --set run.dir=again
equal "$(wc -l <again/metrics.jsonl)" "$(wc -l <run/metrics.jsonl)"

# Two runs of one command are one run, bit for bit, whatever the number of threads; another seed is another run.
ok train -c audio.toml --set run.dir=one
ok train -c audio.toml --threads 2 --set run.dir=two
same one/checkpoints/12/model.safetensors two/checkpoints/12/model.safetensors
same one/checkpoints/12/optimizer.safetensors two/checkpoints/12/optimizer.safetensors
ok train -c audio.toml --seed 4 --set run.dir=three
! cmp -s one/checkpoints/12/model.safetensors three/checkpoints/12/model.safetensors || die 'the seed changes nothing'

# Another model in the same directory is refused, by the key that differs.
refuses 'one holds a run with another model.d_model' -- train -c audio.toml --set run.dir=one --set model.d_model=16
# A directory that never came to a checkpoint binds nobody.
mkdir fresh
sed 's/d_model = 8/d_model = 4/' one/config.toml >fresh/config.toml
ok train -c audio.toml --set run.dir=fresh

# What --help-config prints is a run file.
ok train --help-config
cp out all.toml
ok train -c all.toml --set data.kind=synthetic --set data.length=16 --set task.kind=per_position --set train.steps=2 \
  --set train.batch=2 --set data.examples=16 --set model.d_model=8 --set 'model.blocks=["mamba"]' --set run.dir=all
says out 'test accuracy '
