/* fleet_train.h: the training kernel, included by fleet.h once for each OWN: slots of 16 parameters whose moments a thread keeps in registers (2, 4),
   or 0: moments stay in global memory. A macro and not an argument, because register arrays need a size that the compiler knows. */
#define NAME_(name, own)  name##_##own
#define NAME__(name, own) NAME_(name, own)
#define NAME(name)        NAME__(name, OWN)

/* One optimiser step. No barrier follows the update: weights are read again, and buffers written again, only behind those of the next gather. Returns
 * the batch's loss sum in thread 0. */
GPU_FN double NAME(fleet_step)(const block *b, const fleet_job *j, const neap_perm *perm, int64_t first, int batch, int64_t t, float (*m)[16],
                               float (*v)[16], double sum) {
    const neap_plan *p = b->p;
    f_rule *rule = (f_rule *)(b->sh + p->flags + 24); /* one thread works it out; it would cost every thread a dozen registers */
    float scale = v_div(1.0f, (float)((int64_t)batch * p->net.out));
    for (int at = 0; at < batch; at += p->rows) {
        int n = batch - at < p->rows ? batch - at : p->rows, last = at + n == batch, direct = last && j->hyper.clip <= 0.0f;
        fleet_gather(b, &j->train, perm, first + at, n, 1);
        if (b->t == 0) *rule = f_rule_make(&j->hyper, t); /* behind the gather's barriers: nobody uses the last one any more */
        fleet_forward(b, n);
        fleet_loss(b, &j->hyper, n, scale, 1);
        if (b->t == 0) sum = fleet_sum(b, n, sum);
        for (int k = p->net.layers - 1; k > 0; k--) {
            fleet_delta(b, k, n);
            gpu_sync(7);
        }
        GPU_UNROLL for (int o = 0; o < (OWN ? OWN : 1); o++) {
            for (int s = b->t + o * b->threads; s < p->slots; s += OWN ? p->slots : b->threads) {
                slot q = fleet_slot(p, s);
                float acc[16];
                GPU_UNROLL for (int e = 0; e < 16; e++) acc[e] = at > 0 && e / 4 < q.rows ? j->grad[q.p + e / 4 * q.ldp + e % 4] : 0.0f;
                fleet_grad(b, &q, n, acc);
                if (direct && OWN) {
                    fleet_update(b, &q, rule, acc, m[o], v[o]);
                } else if (direct) {
                    float mm[16], vv[16];
                    GPU_UNROLL for (int e = 0; e < 16; e++) {
                        if (e / 4 < q.rows) mm[e] = j->m[q.p + e / 4 * q.ldp + e % 4], vv[e] = j->v[q.p + e / 4 * q.ldp + e % 4];
                    }
                    fleet_update(b, &q, rule, acc, mm, vv);
                    GPU_UNROLL for (int e = 0; e < 16; e++) {
                        if (e / 4 < q.rows) j->m[q.p + e / 4 * q.ldp + e % 4] = mm[e], j->v[q.p + e / 4 * q.ldp + e % 4] = vv[e];
                    }
                } else {
                    GPU_UNROLL for (int e = 0; e < 16; e++) {
                        if (e / 4 < q.rows) j->grad[q.p + e / 4 * q.ldp + e % 4] = acc[e];
                    }
                }
            }
        }
    }
    if (j->hyper.clip > 0.0f) {
        f_rule clipped = *rule;
        clipped.scale = fleet_clip(b, j->grad, j->hyper.clip);
        GPU_UNROLL for (int o = 0; o < (OWN ? OWN : 1); o++) {
            for (int s = b->t + o * b->threads; s < p->slots; s += OWN ? p->slots : b->threads) {
                slot q = fleet_slot(p, s);
                float acc[16], mm[16], vv[16];
                GPU_UNROLL for (int e = 0; e < 16; e++) {
                    if (e / 4 >= q.rows) continue;
                    int64_t at = q.p + e / 4 * q.ldp + e % 4;
                    acc[e] = j->grad[at];
                    if (!OWN) mm[e] = j->m[at], vv[e] = j->v[at];
                }
                fleet_update(b, &q, &clipped, acc, OWN ? m[o] : mm, OWN ? v[o] : vv);
                GPU_UNROLL for (int e = 0; e < 16; e++) {
                    if (!OWN && e / 4 < q.rows) j->m[q.p + e / 4 * q.ldp + e % 4] = mm[e], j->v[q.p + e / 4 * q.ldp + e % 4] = vv[e];
                }
            }
        }
    }
    return sum;
}

/* Epochs from..to-1 of a job (fewer if it has fewer, or stops early). */
GPU_KERNEL GPU_BOUNDS(256, OWN == 2 ? 2 : 1) NAME(neap_fleet_train)(fleet_job *jobs, int from, int to) {
    fleet_job *j = &jobs[gpu_block()];
    if (j->ended || from >= j->epochs) return;
    block b = fleet_block(j->plan, j->w);
    if (OWN) b.w = b.sh; /* known at compile time: loads become shared-memory loads */
    const neap_plan *p = b.p;
    float m[OWN ? OWN : 1][16], v[OWN ? OWN : 1][16];
    int *flag = (int *)(b.sh + p->flags);
    int64_t t = j->t;
    double best_loss = j->best_loss;
    int best_epoch = j->best_epoch, done = from, enough = 0;
    GPU_UNROLL for (int o = 0; o < OWN; o++) {
        int s = b.t + o * b.threads;
        if (s >= p->slots) continue;
        slot q = fleet_slot(p, s);
        GPU_UNROLL for (int e = 0; e < 16; e++) {
            if (e / 4 < q.rows) m[o][e] = j->m[q.p + e / 4 * q.ldp + e % 4], v[o][e] = j->v[q.p + e / 4 * q.ldp + e % 4];
        }
    }
    fleet_copy(&b, j->w, 1);
    for (int epoch = from; epoch < to && epoch < j->epochs && !enough; epoch++) {
        double sum = 0.0;
        for (int64_t at = 0; at < j->train.n; at += j->batch) {
            int batch = j->train.n - at < j->batch ? (int)(j->train.n - at) : j->batch;
            sum = NAME(fleet_step)(&b, j, j->shuffle ? &j->perms[epoch] : (const neap_perm *)0, at, batch, ++t, m, v, sum);
        }
        if (b.t == 0) j->train_loss[epoch] = d_div(sum, d_mul((double)j->train.n, (double)p->net.out));
        done = epoch + 1;
        if (j->val.n > 0) {
            double loss = fleet_mean_loss(&b, &j->hyper, &j->val);
            if (b.t == 0) {
                j->val_loss[epoch] = loss;
                flag[0] = loss < best_loss;
                if (flag[0]) best_loss = loss, best_epoch = done;
                flag[1] = !flag[0] && j->patience > 0 && done - best_epoch >= j->patience;
            }
            gpu_sync(8);
            int better = flag[0];
            enough = flag[1];
            if (better && j->best && p->weights_shared) fleet_copy(&b, j->best, 0);
            if (better && j->best && !p->weights_shared)
                for (size_t i = (size_t)b.t; i < p->net.params; i += (size_t)b.threads) j->best[i] = b.w[i];
        }
    }
    fleet_copy(&b, j->w, 0);
    GPU_UNROLL for (int o = 0; o < OWN; o++) {
        int s = b.t + o * b.threads;
        if (s >= p->slots) continue;
        slot q = fleet_slot(p, s);
        GPU_UNROLL for (int e = 0; e < 16; e++) {
            if (e / 4 < q.rows) j->m[q.p + e / 4 * q.ldp + e % 4] = m[o][e], j->v[q.p + e / 4 * q.ldp + e % 4] = v[o][e];
        }
    }
    if (b.t == 0) j->t = t, j->epochs_done = done, j->best_epoch = best_epoch, j->best_loss = best_loss, j->ended = enough;
}

#undef NAME
#undef NAME_
#undef NAME__
