#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# embed: rows of records and of steps, in any chunks; the table that says whose they are.
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "$0")/lib.sh"
make_dna
make_audio
ok train -c lm.toml
ok train -c audio.toml
{ fasta long 1000 5; fasta seven 7 6; } >x.fa
shape() { head -c 128 "$1" | tr -cd '[:print:]' | sed "s/.*'descr': '\([^']*\)'.*'shape': \(([^)]*)\).*/\1 \2/"; }
rows() { od -An -v -w32 -t f4 -j 128 "$1"; } # d_model = 8
near() { # near A B: rows, within 1e-5 of the largest
  paste "$1" "$2" | awk '
    NF != 16 { bad = 1 }
    { for (i = 1; i <= 8; ++i) { d = $i - $(i + 8); d = d < 0 ? -d : d; m = d > m ? d : m
        a = $i < 0 ? -$i : $i; top = a > top ? a : top } }
    END { exit !(NR > 0 && top > 0 && !bad && m <= 1e-5 * top) }' || die "$1 and $2 differ"
}

# A row a step, in order; a file of exactly that size.
ok embed lm x.fa -o steps.npy --per-position
equal "$(shape steps.npy)" '<f4 (1007,8,)'
equal "$(stat -c %s steps.npy)" $((128 + 4 * 8 * 1007))
equal "$(cat steps.npy.tsv)" $'name\tstart\tend\trow\trows\nlong\t0\t1000\t0\t1000\nseven\t0\t7\t1000\t7'
rows steps.npy >steps

# Their mean, their last.
ok embed lm x.fa -o mean.npy
equal "$(shape mean.npy)" '<f4 (2,8,)'
equal "$(cat mean.npy.tsv)" $'name\tstart\tend\trow\trows\nlong\t0\t1000\t0\t1\nseven\t0\t7\t1\t1'
rows mean.npy >mean
{ head -n 1000 steps | awk '{ for (i = 1; i <= 8; ++i) s[i] += $i } END { for (i = 1; i <= 8; ++i) printf " %.9g", s[i] / NR; print "" }'
  tail -n 7 steps | awk '{ for (i = 1; i <= 8; ++i) s[i] += $i } END { for (i = 1; i <= 8; ++i) printf " %.9g", s[i] / NR; print "" }'; } >wanted
near mean wanted
ok embed lm x.fa -o last.npy --pooling last
rows last.npy >last
sed -n '1000p;1007p' steps >wanted
near last wanted
! cmp -s mean last || die 'mean and last are the same'

# Chunks change memory, not the result.
for chunk in 1 13 64 1000; do
  ok embed lm x.fa -o chunked.npy --chunk $chunk
  near <(rows chunked.npy) mean
  ok embed lm x.fa -o chunked.npy --chunk $chunk --per-position
  near <(rows chunked.npy) steps
done

# The features are those that the model's logits come from: a classifier pools the mean, so do we.
ok embed run c0.wav c1.wav -o clips.npy
equal "$(shape clips.npy)" '<f4 (2,8,)'
equal "$(cut -f 2-5 clips.npy.tsv | tail -n 2)" $'0.000\t0.100\t0\t1\n0.000\t0.100\t1\t1'
[[ $(rows clips.npy | head -n 1) != "$(rows clips.npy | tail -n 1)" ]] || die 'two clips have one row'

# Windows; a manifest; what cannot be read is named, the rest is done and no row is left of it.
ok embed run c0.wav -o windows.npy --windows 400/300
equal "$(shape windows.npy)" '<f4 (3,8,)'
ok embed run clips.tsv -o clips.npy
equal "$(shape clips.npy)" '<f4 (20,8,)'
{ fasta good 70 1; printf '>bad\n%s1\n' "$(bases 90 4)"; fasta fine 90 2; } >mixed.fa
exits 1 embed lm mixed.fa -o mixed.npy --per-position --chunk 16
says err 'mixed.fa: record bad, position 91: wanted a base'
equal "$(shape mixed.npy)" '<f4 (160,8,)'
equal "$(stat -c %s mixed.npy)" $((128 + 4 * 8 * 160))
equal "$(tail -n 1 mixed.npy.tsv)" $'fine\t0\t90\t70\t90'
tail -n +2 mixed.npy.tsv | cut -f 1 >names
equal "$(tr '\n' ' ' <names)" 'good fine '
{ fasta good 70 1; } >good.fa
ok embed lm good.fa -o good.npy --per-position
near <(rows good.npy) <(rows mixed.npy | head -n 70)

refuses 'a name that ends in .npy was wanted' -- embed lm x.fa -o x.txt
refuses 'not/there.npy: cannot write' -- embed lm good.fa -o not/there.npy
[[ ! -c /dev/full ]] || { ln -s /dev/full full.npy && refuses 'full.npy: cannot write' -- embed lm x.fa -o full.npy; }
exits 2 embed lm x.fa
exits 2 embed lm x.fa -o x.npy --pooling most
