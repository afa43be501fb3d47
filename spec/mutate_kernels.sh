#!/bin/sh
# Can the kernel tests fail? Each line below breaks one thing in a copy of kernels/; spec/c/kernels_test.c or kernels_job_test.c must then fail.
# Run: sh spec/mutate_kernels.sh     (three minutes; prints one line a mutation, exit 1 if one survives)
# FILE|sed expression|what is broken
LIST='formulas.h|s/v_set1(0.166666657f)/v_set1(0.168666657f)/|a coefficient of exp (gelu, tanh)
formulas.h|s/case NEAP_ACT_TANH: return v_mul(d, v_nfma(h, h, v_set1(1.0f)))/case NEAP_ACT_TANH: return v_mul(d, v_nfma(h, h, v_set1(0.999f)))/|the slope of tanh
formulas.h|s/\*derivative = v_fma(v_mul(x, v_set1(0.398942280f)), q, phi)/*derivative = phi/|the slope of gelu
formulas.h|s/v_mul(k, v_nfma(v_set1(0.5f), k, a))/v_mul(k, a)/|huber outside its delta
formulas.h|s/v_sub(1.0, f_power((double)h->beta1, t))/v_sub(1.0, f_power((double)h->beta1, t + 1))/;s/d_sub(1.0, f_power((double)h->beta1, t))/d_sub(1.0, f_power((double)h->beta1, t + 1))/|the bias correction of adam
formulas.h|s/\*w = v_mul(\*w, v_set1(r->keep))/*w = *w/|decoupled decay off the fast path
tile.h|s/if (p->keep) w = v_mul/if (0) w = v_mul/|decoupled decay on the fast path
tile.h|s/v_lt(v_set1(0.0f), v_load(j->h + at))/v_lt(v_set1(-1.0f), v_load(j->h + at))/|the gate of relu
tile.h|s/for (; i < pending->n; i++) tile_pending_one/for (; i + 1 < pending->n; i++) tile_pending_one/|the last waiting vector of a tile is not updated
tile.h|s/if (kind == T_FORWARD) acc\[r\]\[c\] = v_load(j->bias/if (0) acc[r][c] = v_load(j->bias/|the bias forward
tile.h|s/total\[c\] = v_add(total\[c\], bv\[c\])/total[c] = v_add(total[c], v_add(bv[c], bv[c]))/|the bias gradient
tile.h|s/if (row < hi) tile(kind, 0, 1/if (0) tile(kind, 0, 1/|the last odd row
simd.h|s/acc\[r\]\[c\] = v_fma(v_load(x + r \* ldx + i + c \* LANE)/acc[r][c] = v_fma(v_load(x + i + c * LANE)/|dot products of the wrong row
simd.h|s/resume = at > 0/resume = 0/|gradients of earlier chunks are forgotten
simd.h|s/if (!resume) memset(sum, 0/if (0) memset(sum, 0/|the bias gradient of the last step stays
simd.h|s/int lo = (int)((long)rows \* member \/ size)/int lo = (int)((long)rows * member \/ size) + (member > 0)/|a team member skips a sample
lane_avx512.h|s/0, 4, 8, 12, 1, 5/0, 4, 12, 8, 1, 5/|the order of sixteen sums
lane_avx2.h|s/b\[2 \* i + 1\], 0x31/b[2 * i + 1], 0x21/|the order of four sums
lane_avx512.h|s/_mm512_srai_epi32(d, 31)/_mm512_setzero_si512()/|tiny moments stay on AVX-512
clip.h|s/step = 4; step; step/step = 2; step; step/|half of the norm
net.c|s/(float)l->in)/(float)l->out)/|the bound of the first weights
perm.h|s/still += value >= p->n/still += value > p->n/|a shuffle that leaves the range
transpose.h|s/, 0x31)/, 0x20)/|the transposed weights
drive.c|s/loss < j->best_loss/loss > j->best_loss/|the best epoch'
dir=$(mktemp -d) && trap 'rm -rf "$dir"' EXIT
survivors=0
build() {
    for f in "$dir"/kernels/*.c; do
        case $f in *avx2*) isa="-mavx2 -mfma" ;; *avx512*) isa="-mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma" ;; *) isa= ;; esac
        gcc -D_GNU_SOURCE -std=gnu11 -O1 -w -ffp-contract=off -fno-strict-aliasing $isa -I"$dir" -I. -c "$f" -o "$f.o" &
    done
    wait
    for t in kernels kernels_job; do
        gcc -D_GNU_SOURCE -std=gnu11 -O1 -w -ffp-contract=off -I"$dir" -I. spec/c/${t}_test.c "$dir"/kernels/*.o -o "$dir/${t}_test" -lm -lpthread || return 1
    done
}
try() {
    rm -rf "$dir/kernels" && cp -r kernels "$dir/kernels" && rm -rf "$dir/kernels/cuda"
    if [ -n "$2" ]; then
        sed -i "$2" "$dir/kernels/$1"
        cmp -s "kernels/$1" "$dir/kernels/$1" && echo "STALE     $3: the expression matches nothing" && survivors=1 && return
    fi
    build || { echo "STALE     $3: does not compile"; survivors=1; return; }
    if timeout 60 "$dir/kernels_test" >"$dir/log" 2>&1 && timeout 60 "$dir/kernels_job_test" >"$dir/log" 2>&1; then verdict=survives; else verdict=caught; fi
    echo "$verdict  $3"
    [ "$verdict" = "$4" ] || survivors=1
}
try "" "" "nothing broken" survives
while IFS='|' read -r file expression what; do
    try "$file" "$expression" "$what" caught
done <<LINES
$LIST
LINES
exit $survivors
