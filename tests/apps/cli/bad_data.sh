#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Data that cannot be used: one sentence that names the file and the record, before anything is written.
#
# A training set with a file that is missing, cut short or no audio is refused before the first step, with the name of the
# file and the line of the manifest: nobody wants to learn of it after hours, and leaving the file out silently would
# change what is trained. A bad sample or letter inside a sound file shows when the record is read; the run then stops
# with its name, and the same command goes on from the last checkpoint once the file is mended.
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "$0")/lib.sh"
make_audio
make_dna

# no TEXT... -- RUNFILE [KEY=VALUE]...
no() {
  local texts=() sets=()
  while [[ $1 != -- ]]; do
    texts+=("$1")
    shift
  done
  local file=$2
  shift 2
  for pair in "$@"; do
    sets+=(--set "$pair")
  done
  refuses "${texts[@]}" -- train -c "$file" --set run.dir=bad "${sets[@]}"
  absent bad
}

# --- files and manifests
: >empty
no 'none.tsv: no such file' -- audio.toml data.train=none.tsv
no 'manifest empty: the file is empty' -- audio.toml data.train=empty
no 'found a directory' -- audio.toml data.train=.
no 'none.fa' 'no such file' -- lm.toml data.train=none.fa
printf 'path\tname\nc0.wav\tx\n' >table.tsv
no "table.tsv" "wanted a column 'label'" "found 'path', 'name'" 'data.columns' -- audio.toml data.train=table.tsv
printf 'file\tlabel\nc0.wav\tx\n' >table.tsv
no "wanted a column 'path' or 'sequence', found 'file', 'label'" -- audio.toml data.train=table.tsv
printf 'path\tlabel\nc0.wav\n' >table.tsv
no 'table.tsv' 'line 2' -- audio.toml data.train=table.tsv
no 'valid.tsv' 'no such file' -- audio.toml data.valid=valid.tsv

# --- classes
no 'class "mid" of task.classes has no example in clips.tsv' -- audio.toml 'task.classes=["low", "mid", "high"]'
no 'task.classes names "low" twice' -- audio.toml 'task.classes=["low", "low"]'
no 'task.classes names one class only' -- audio.toml 'task.classes=["low"]'
awk 'NR == 1 || $2 == "low"' clips.tsv >one.tsv
no 'needs at least two labels; one.tsv has only "low"' -- audio.toml data.train=one.tsv
awk '!($2 == "low" && $3 == "train")' clips.tsv >untrained.tsv
no 'untrained.tsv has only "high"' -- audio.toml data.train=untrained.tsv
sed 's/low\tvalid/middle\tvalid/' clips.tsv >stranger.tsv
no "label 'middle' is none of the 2 classes" 'stranger.tsv line' -- audio.toml data.train=stranger.tsv
no 'needs labels: t.fa has none' -- lm.toml task.kind=classify

# --- sound files, in every split
tone cut.wav 800 300 1
truncate -s 900 cut.wav
head -c 20 c0.wav >header.wav
wav_header 1 16 8000 0 >zero.wav
head -c 500 /dev/zero >noise.wav
for split in 3 14 18; do # a row for training, validation, test
  for bad in 'cut.wav the header promises 800 frames, the file holds 428' 'header.wav cannot be decoded' \
    'zero.wav the file holds no audio' 'noise.wav cannot be decoded' 'gone.wav no such file'; do
    sed "s/^c$split\.wav/${bad%% *}/" clips.tsv >bad.tsv
    no "audio ${bad%% *}" "${bad#* }" "manifest bad.tsv line $((split + 2))" -- audio.toml data.train=bad.tsv
  done
done
# NaN is in no header: the run stops where it is read, and goes on once it is mended.
{ wav_header 3 32 8000 1600 && printf '\0\0\300\177%.0s' {1..400}; } >nan.wav
cp nan.wav later.wav
sed 's/^c3\.wav/later.wav/' clips.tsv >nan.tsv
exits 1 train -c audio.toml --set run.dir=nan --set data.train=nan.tsv --set train.save_every=1
equal "$(grep -c '^error: ' err)" 1
says err 'audio later.wav: wanted finite samples, found NaN at 0 s (sample 0) (manifest nan.tsv line 5)'
cp c3.wav later.wav
ok train -c audio.toml --set run.dir=nan --set data.train=nan.tsv --set train.save_every=1
equal "$(logged_steps nan/metrics.jsonl | tr '\n' ' ')" '1 2 3 4 5 6 7 8 9 10 11 12 '

# --- DNA
bases 60 1 >headless.fa
no 'headless.fa, line 1: wanted a header line' -- lm.toml data.train=headless.fa
fasta chr1 400 1 >g.fa
printf 'chr1\t0\t32\ta\nchr1\t390\t480\tb\n' >far.bed
no 'far.bed, line 2' "within the 400 bases of record 'chr1', found begin 390 and end 480" -- lm.toml data.train=g.fa data.regions=far.bed
printf 'chr1\t0\t32\ta\nchr7\t3\t40\tb\n' >name.bed
no 'name.bed, line 2' "no record 'chr7'" "it has 'chr1'" -- lm.toml data.train=g.fa data.regions=name.bed
printf 'chr1\t30\t20\ta\n' >turned.bed
no 'turned.bed' -- lm.toml data.train=g.fa data.regions=turned.bed
{ cat t.fa && printf '>digits\nACGT12ACG\n'; } >digits.fa
exits 1 train -c lm.toml --set run.dir=digits --set data.train=digits.fa
says err "digits.fa: record 'digits', position 5: wanted a base (A, C, G, T, U or an IUPAC ambiguity code), found '1'"

# --- no two models in one place: the same mistakes as inputs of the other verbs
ok train -c lm.toml
for file in empty . none.fa headless.fa; do
  exits 1 score lm $file
  says err "$file"
  equal "$(grep -c '^error: ' err)" 1
  equal "$(wc -l <out)" 1
done
