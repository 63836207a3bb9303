#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# classify: files, manifests, windows, standard input; what cannot be read is named and the rest is done.
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "$0")/lib.sh"
make_audio
ok train -c audio.toml --set train.steps=40 --set train.eval_every=20
row() { awk -v n="$1" 'NR == n + 1' "${2:-out}"; }
rows() { echo $(($(wc -l <out) - 1)); }

# Several files, one of them bad: the others are done, and the exit code says so.
tone short.wav 400 300 1
truncate -s 200 short.wav
exits 1 classify run c0.wav none.wav c1.wav short.wav c2.wav
equal "$(rows)" 3
equal "$(head -n 1 out)" $'name\tstart\tend\tlabel\tprobability\tp_high\tp_low'
equal "$(row 2 | cut -f 1-4)" $'c1.wav\t0.000\t0.100\tlow'
equal "$(row 3 | cut -f 1-4)" $'c2.wav\t0.000\t0.100\thigh'
says err 'none.wav: no such file'
says err 'short.wav: the header promises 400 frames, the file holds 78'
says err '2 parts of the input could not be read'
awk 'NR > 1 { sum = $6 + $7; if (sum < 0.999998 || sum > 1.000002 || $5 != ($6 > $7 ? $6 : $7)) exit 1 }' out ||
  die 'probabilities add up to 1, and the label has the largest'

# Chunks change memory, not the result.
ok classify run c0.wav c1.wav
cp out whole
for chunk in 1 33 100000; do
  ok classify run c0.wav c1.wav --chunk $chunk
  for n in 1 2; do
    close "$(row $n | cut -f 6)" "$(row $n whole | cut -f 6)"
  done
done

# Windows, in samples; the last one is what is left.
ok classify run c0.wav --windows 400/300
equal "$(awk 'NR > 1 { print $2, $3 }' out | tr '\n' ' ')" '0.000 0.050 0.037 0.087 0.075 0.100 '
ok classify run c0.wav --windows 400
equal "$(awk 'NR > 1 { print $2, $3 }' out | tr '\n' ' ')" '0.000 0.050 0.050 0.100 '
cp out windows
tone_pcm 800 1200 0 | tail -c 800 >half.pcm
{ wav_header 1 16 8000 800 && cat half.pcm; } >half.wav
ok classify run half.wav
equal "$(row 1 | cut -f 4-)" "$(row 2 windows | cut -f 4-)"
for windows in 40x 0 -3 400/0 400/ /3; do
  refuses "--windows $windows" 'LENGTH or LENGTH/HOP' -- classify run c0.wav "--windows=$windows"
done

# A manifest: its rows, as if named one by one; start and end in seconds; a bad row is passed over.
ok classify run clips.tsv
equal "$(rows)" 20
equal "$(row 1 | cut -f 2-)" "$(row 1 whole | cut -f 2-)"
printf 'path\tstart\tend\nc0.wav\t0.05\t0.1\nnone.wav\t\t\nc1.wav\t\t\n' >parts.tsv
exits 1 classify run parts.tsv
equal "$(rows)" 2
equal "$(row 1 | cut -f 2-)" "$(row 2 windows | cut -f 2-)"
equal "$(row 2 | cut -f 2-)" "$(row 2 whole | cut -f 2-)"
says err 'none.wav: no such file (manifest parts.tsv line 3)'

# Raw PCM on standard input.
tone_pcm 800 1200 0 >c0.pcm
ok classify run - --raw-format s16le --raw-rate 8000 <c0.pcm
equal "$(row 1 | cut -f 1-3)" $'standard input\t0.000\t0.100'
equal "$(row 1 | cut -f 4-)" "$(row 1 whole | cut -f 4-)"
exits 1 classify run - <c0.pcm
says err 'say --raw-format s16le or f32le and --raw-rate HZ'
exits 1 classify run - --raw-format s16le <c0.pcm
says err 'needs --raw-rate in Hz'
exits 1 classify run - --raw-format s24 --raw-rate 8000 <c0.pcm
says err "wanted s16le or f32le, found 's24'"
exits 1 classify run - --raw-format s16le --raw-rate 8000 </dev/null
says err 'holds no audio'
exits 1 classify run - --raw-format s16le --raw-rate 8000 < <(head -c 801 c0.pcm)
says err 'found 1 bytes more after sample 400'

# DNA: one bad record among several; windows in bases; a manifest of sequences.
printf 'sequence\tlabel\n' >reads.tsv
for i in {1..16}; do
  printf '%s\t%s\n' "$(bases 40 "$i" "$([[ $((i % 2)) == 1 ]] && echo AAC || echo GGT)")" $((i % 2))
done >>reads.tsv
cat >dna.toml <<'END'
device = "cpu"
threads = 1
[data]
kind = "dna"
train = "reads.tsv"
length = 32
[model]
d_model = 8
blocks = ["mamba"]
[train]
steps = 30
batch = 4
lr = 1e-2
[run]
dir = "dna"
END
ok train -c dna.toml
{ echo '>empty'; fasta good 70 1; printf '>bad\nACGT12ACG\n'; fasta fine 90 2; } >mixed.fa
exits 1 classify dna mixed.fa
equal "$(awk 'NR > 1 { print $1, $2, $3 }' out | tr '\n' ' ')" 'good 0 70 fine 0 90 '
says err 'mixed.fa: record bad, position 5: wanted a base'
says err "mixed.fa: record 'empty' (line 1) has no bases"
exits 1 classify dna mixed.fa --windows 50
equal "$(awk 'NR > 1 { print $1, $2, $3 }' out | tr '\n' ' ')" 'good 0 50 good 50 70 fine 0 50 fine 50 90 '
# Windows apart, beyond a line of the file, and one that lies past the end.
fasta long 200 3 >long.fa
ok classify dna long.fa --windows 40/70
equal "$(awk 'NR > 1 { print $2, $3 }' out | tr '\n' ' ')" '0 40 70 110 140 180 '
ok classify dna long.fa --windows 40/180
equal "$(awk 'NR > 1 { print $2, $3 }' out | tr '\n' ' ')" '0 40 180 200 '
ok classify dna long.fa --windows 40/300
equal "$(awk 'NR > 1 { print $2, $3 }' out | tr '\n' ' ')" '0 40 '
ok classify dna long.fa --windows 130/35 --chunk 9
equal "$(awk 'NR > 1 { print $2, $3 }' out | tr '\n' ' ')" '0 130 35 165 70 200 '
cp out windows
{ echo '>part' && bases 200 3 | cut -c 36-165 && echo; } >part.fa
ok classify dna part.fa
close "$(row 1 | cut -f 6)" "$(row 2 windows | cut -f 6)"
ok classify dna reads.tsv
equal "$(awk -F '\t' 'NR > 1 { print $2, $3 }' out | sort -u)" '0 40'
equal "$(rows)" 16

# What is no sequence file at all is said once.
for file in c0.wav clips.pcm; do
  cat c?.wav >clips.pcm
  exits 1 classify dna $file
  equal "$(grep -c '^error: ' err)" 1
done

refuses 'is no classifier' -- classify "$(ok train -c audio.toml --set data.input=mulaw --set data.patch=1 \
  --set task.kind=language_model --set train.steps=1 --set run.dir=lm >/dev/null && echo lm)" c0.wav
# A full disk under the results is no success.
"$program" classify run c0.wav >/dev/full 2>err && die 'success although nothing could be written'
says err 'standard output could not be written'
