#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# --save-state and --resume-state: a stream cut in two anywhere gives what the whole gives in one go.
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "$0")/lib.sh"
make_dna
make_audio
ok train -c lm.toml
ok train -c lm.toml --set data.input=kmer --set data.kmer=3 --set run.dir=kmers
ok train -c audio.toml
ok train -c audio.toml --set model.pooling=attention --set run.dir=attentive
row() { awk -v n="${2:-1}" 'NR == n + 1' "$1"; }
field() { row "$1" "${3:-1}" | cut -f "$2"; }
# cut_fasta BASES: long.fa in first.fa and second.fa.
letters=$(bases 3000 5)
printf '>long\n%s\n' "$letters" >long.fa
cut_fasta() {
  printf '>long\n%s\n' "${letters:0:$1}" >first.fa
  printf '>long\n%s\n' "${letters:$1}" >second.fa
}

# --- score: by bases and by k-mers, of which a cut may break one
for model in lm kmers; do
  ok score $model long.fa
  cp out whole
  ok score $model long.fa --per-position
  tail -n +2 out >whole_positions
  for at in 1 15 16 17 100 1234 2999; do
    cut_fasta $at
    ok score $model first.fa --save-state state --chunk 64 --per-position
    tail -n +2 out >positions
    ok score $model second.fa --resume-state state --chunk 77 --per-position
    tail -n +2 out >>positions
    equal "$(cut -f 1-3 positions)" "$(cut -f 1-3 whole_positions)"
    ok score $model second.fa --resume-state state
    equal "$(field out 2)" "$(field whole 2)"
    close "$(field out 3)" "$(field whole 3)"
    close "$(field out 4)" "$(field whole 4)"
  done
  # Without the state the second half is another sequence.
  cut_fasta 1200
  ok score $model second.fa --per-position
  at=$(awk -v n="$(wc -l <whole_positions)" 'BEGIN { print n * 1200 / 3000 + 1 }')
  [[ $(field out 4) != "$(sed -n "${at}p" whole_positions | cut -f 4)" ]] || die 'the state makes no difference'
  # Three pieces, through one file that is written over.
  cut_fasta 1234
  ok score $model first.fa --save-state state
  printf '>a\n%s\n' "${letters:1234:700}" >middle.fa
  printf '>a\n%s\n' "${letters:1934}" >last.fa
  ok score $model middle.fa --resume-state state --save-state state
  ok score $model last.fa --resume-state state
  close "$(field out 3)" "$(field whole 3)"
done
# Without a start token the first symbol of the stream, and of no other piece, has no score.
ok score lm long.fa --no-bos
cp out whole
cut_fasta 500
ok score lm first.fa --no-bos --save-state state
ok score lm second.fa --no-bos --resume-state state
close "$(field out 3)" "$(field whole 3)"
close "$(field out 4)" "$(field whole 4)"

# --- classify: frames of 8 samples, of which a cut may break one
tone long.wav 4000 300 7
tail -c 8000 long.wav >long.pcm
cut_wav() {
  { wav_header 1 16 8000 $((2 * $1)) && head -c $((2 * $1)) long.pcm; } >first.wav
  { wav_header 1 16 8000 $((8000 - 2 * $1)) && tail -c +$((2 * $1 + 1)) long.pcm; } >second.wav
}
for model in run attentive; do
  ok classify $model long.wav
  cp out whole
  for at in 1 7 8 1003 2000 3999; do
    cut_wav $at
    ok classify $model first.wav
    cp out alone
    ok classify $model first.wav --save-state state
    close "$(field out 6)" "$(field alone 6)" # saving changes nothing
    ok classify $model second.wav --resume-state state --chunk 50
    equal "$(field out 2-4)" "$(field whole 2-4)"
    close "$(field out 6)" "$(field whole 6)"
  done
done
# Raw samples, too.
ok classify run - --raw-format s16le --raw-rate 8000 --save-state state < <(head -c 3006 long.pcm)
ok classify run - --raw-format s16le --raw-rate 8000 --resume-state state < <(tail -c +3007 long.pcm)
close "$(field out 6)" "$(ok classify run long.wav && field out 6)"

# --- embed: a row a record, the same row; a row a step, the same rows one after the other
numbers() { od -An -v -w4 -t f4 -j 128 "$1"; }
same_numbers() { # same_numbers A B: within 1e-5 of the largest
  paste <(numbers "$1") <(numbers "$2") | awk '
    NF != 2 { bad = 1 }
    { d = $1 - $2; d = d < 0 ? -d : d; m = d > m ? d : m; a = $2 < 0 ? -$2 : $2; top = a > top ? a : top }
    END { exit !(NR > 0 && !bad && m <= 1e-5 * top) }' || die "$1 and $2 differ"
}
for pooling in mean last; do
  ok embed run long.wav -o whole.npy --pooling $pooling
  ok embed lm long.fa -o whole_dna.npy --pooling $pooling
  for at in 5 1003 2000; do
    cut_wav $at
    cut_fasta $at
    ok embed run first.wav -o first.npy --pooling $pooling --save-state state
    ok embed run second.wav -o second.npy --pooling $pooling --resume-state state
    same_numbers second.npy whole.npy
    equal "$(field second.npy.tsv 2-5)" $'0.000\t0.500\t0\t1'
    ok embed lm first.fa -o first.npy --pooling $pooling --save-state state
    ok embed lm second.fa -o second.npy --pooling $pooling --resume-state state
    same_numbers second.npy whole_dna.npy
  done
done
ok embed run long.wav -o whole.npy --per-position
for at in 5 1003 2000; do
  cut_wav $at
  ok embed run first.wav -o first.npy --per-position --save-state state
  ok embed run second.wav -o second.npy --per-position --resume-state state
  tail -c +129 second.npy >>first.npy
  same_numbers first.npy whole.npy
done
refuses state 'embed --per-position' -- embed run second.wav -o third.npy --resume-state state
absent third.npy

# --- what a state is not: a sentence that says what is wrong and what to do
fails() { # fails TEXT... -- ARG...: exit code 1 and one sentence with every TEXT
  local texts=()
  while [[ $1 != -- ]]; do
    texts+=("$1")
    shift
  done
  shift
  exits 1 "$@"
  equal "$(grep -c '^error: ' err)" 1
  for text in "${texts[@]}"; do
    says err "$text"
  done
}
cut_fasta 1234
cut_wav 1003
ok score lm first.fa --save-state state
ok classify run first.wav --save-state heard
fails 'heard: is a state of' 'cannot go on from' 'give it to blockstate classify' -- \
  score lm second.fa --resume-state heard
fails 'state: is a state of another model' 'give the checkpoint that it was saved with' -- \
  score kmers second.fa --resume-state state
ok train -c lm.toml --seed 4 --set run.dir=twin
fails 'state: is a state of another model' -- score twin second.fa --resume-state state
cp -r lm moved # the same model elsewhere is the same model
ok score moved second.fa --resume-state state
for size in 0 7 100 $(($(stat -c %s state) / 2)) $(($(stat -c %s state) - 1)); do
  head -c "$size" state >short
  fails 'short: ' '--resume-state wants a whole file that --save-state wrote' -- \
    score lm second.fa --resume-state short
done
cp state flipped
printf '\377' | dd of=flipped bs=1 seek=$(($(stat -c %s state) - 2)) conv=notrunc status=none
fails 'flipped: its tensors are damaged' -- score lm second.fa --resume-state flipped
fails 'is no stream' -- score lm second.fa --resume-state lm/checkpoints/6/model.safetensors
fails 'gone: ' 'No such file' -- score lm second.fa --resume-state gone
sed 's/"version": "1"/"version": "9"/' state >later
fails 'later: is of state format 9, this program reads format 1' -- score lm second.fa --resume-state later

# One stream, at the model's own rate.
fails 'for one stream; 2 inputs' -- score lm first.fa second.fa --save-state none
cat first.fa second.fa >both.fa
fails 'both.fa holds more than the record long' -- score lm both.fa --save-state none
fails 'clips.tsv lists records' -- classify run clips.tsv --save-state none
fails '--windows cuts a record' -- classify run first.wav --windows 100 --save-state none
{ wav_header 1 16 11025 8000 && cat long.pcm; } >other.wav
fails 'other.wav: has 11025 Hz, the model 8000 Hz' -- classify run other.wav --save-state none
fails 'none.wav: no such file' -- classify run none.wav --save-state none
fails 'not/there.part: cannot write' -- score lm first.fa --save-state not/there
absent none

# A carry that grows is kept too, and said to grow.
ok train -c lm.toml --set 'model.blocks=["mamba attention"]' --set model.attention.heads=2 --set run.dir=growing
ok score growing long.fa
cp out whole
silent err 'memory grows'
ok score growing first.fa --save-state state
says err 'layers.1 (attention): keys and values of all steps are kept, so memory grows with the stream'
ok score growing second.fa --resume-state state
close "$(field out 3)" "$(field whole 3)"
