#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# train: killed, stopped, and gone on with. The result is that of a run that nobody touched, bit for bit.
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "$0")/lib.sh"
make_audio
long=(train -c audio.toml --set train.steps=300 --set train.save_every=10 --set train.eval_every=100 --set model.dropout=0.1)
whole=whole
ok "${long[@]}" --set run.dir=$whole

# What must be equal; seconds and speed differ.
numbers() { sed 's/"seconds":[^,}]*,*//; s/,"tokens_per_second":[^,}]*//' "$1"; }
finished_like_whole() {
  equal "$(logged_steps "$1/metrics.jsonl" | tr '\n' ' ')" "$(seq 300 | tr '\n' ' ')"
  numbers "$1/metrics.jsonl" >numbers
  numbers $whole/metrics.jsonl | cmp -s - numbers || die "the logs of $1 and $whole differ"
  same "$1/checkpoints/300/model.safetensors" $whole/checkpoints/300/model.safetensors
  same "$1/checkpoints/300/optimizer.safetensors" $whole/checkpoints/300/optimizer.safetensors
  same "$1/checkpoints/300/state.json" $whole/checkpoints/300/state.json
  [[ -z $(find "$1" -name '.unfinished-*' -o -name '*.part') ]] || die "leftovers in $1"
}
# stop_at LINES SIGNAL DIR: starts the run and sends a signal when the log has so many lines.
stop_at() {
  "$program" "${long[@]}" --set "run.dir=$3" >out 2>err &
  local pid=$!
  wait_for_steps "$3/metrics.jsonl" "$1" "$pid"
  kill "-$2" "$pid"
  wait "$pid" 2>wait_says
  status=$?
}
last_checkpoint() { find "$1/checkpoints" -mindepth 1 -maxdepth 1 -name '[0-9]*' -printf '%f\n' | sort -n | tail -n 1; }

# kill -9, three times; once in the middle of a line of the log.
for lines in 40 120 200; do
  stop_at $lines KILL killed
  equal $status 137
  step=$(last_checkpoint killed)
  ((step >= lines / 2 && step < 300)) || die "the last checkpoint is of step $step, the log had $lines lines"
  equal $((step % 10)) 0
  ok eval killed
  ((lines != 120)) || printf '{"step":%s,"tok' $((step + 1)) >>killed/metrics.jsonl
done
ok "${long[@]}" --set run.dir=killed
says err 'going on at step '
finished_like_whole killed

# Ctrl-C ends the step, saves, and says how to go on; SIGTERM too.
for signal in INT TERM; do
  dir=stopped_$signal
  stop_at 105 $signal $dir
  equal $status 130
  step=$(last_checkpoint $dir)
  says err "stopped at step $step; the checkpoint is saved in $dir. The same command goes on from there."
  equal "$(logged_steps $dir/metrics.jsonl | tail -n 1)" "$step"
  absent $dir/result.json
  ok "${long[@]}" --set run.dir=$dir
  says err "going on at step $step"
  finished_like_whole $dir
done

# The same in chunks: killed in the middle of some chunk of a step.
long+=(--set train.chunk=7 --set train.keep=1)
whole=whole_chunked
ok "${long[@]}" --set run.dir=$whole
for lines in 40 150; do
  stop_at $lines KILL killed_chunked
  equal $status 137
done
ok "${long[@]}" --set run.dir=killed_chunked
says err 'going on at step '
finished_like_whole killed_chunked
