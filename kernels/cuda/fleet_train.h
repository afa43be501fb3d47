/* fleet_train.h: the training kernel, included by fleet.h once for each OWN: slots of 16 parameters whose moments a thread keeps in registers (2, 4),
   or 0: moments stay in global memory. A macro and not an argument, because register arrays need a size that the compiler knows. */
#define NAME_(name, own)  name##_##own
#define NAME__(name, own) NAME_(name, own)
#define NAME(name)        NAME__(name, OWN)

/* One optimiser step. No barrier follows the update: weights are read again, and buffers written again, only behind those of the next gather. A batch
   that needs several chunks keeps its sums in j->grad; with clipping, all of them go there, and one more round applies them. */
GPU_FN void NAME(fleet_step)(const block *b, const fleet_job *j, const neap_perm *perm, int64_t first, int batch, float (*m)[16], float (*v)[16]) {
    const neap_plan *p = b->p;
    f_rule *rule = (f_rule *)(b->sh + p->flags + 24); /* one thread works it out; it would cost every thread a dozen registers */
    int clips = j->hyper.clip > 0.0f, end = plan_pad(batch, p->rows) + (clips ? p->rows : 0);
    for (int at = 0; at < end; at += p->rows) {
        int n = batch - at < p->rows ? batch - at : p->rows, update = at + n == batch && !clips;
        float clip = 1.0f;
        if (n > 0) {
            fleet_gather(b, &j->train, perm, first + at, n, 1);
            if (b->t == 0)
                *rule = f_rule_make(&j->hyper, at == 0 ? ++fleet_tally_of(b)->t : fleet_tally_of(b)->t); /* nobody uses the last one any more */
            fleet_forward(b, n);
            fleet_loss(b, &j->hyper, n, v_div(1.0f, (float)((int64_t)batch * p->net.out)), 1);
            if (b->t == 0) fleet_sum(b, n);
            for (int k = p->net.layers - 1; k > 0; k--) {
                fleet_delta(b, k, n);
                gpu_sync(7);
            }
        } else {
            clip = fleet_clip(b, j->grad, j->hyper.clip);
            update = 1;
        }
        GPU_UNROLL for (int o = 0; o < (OWN ? OWN : 1); o++) {
            for (int s = b->t + o * FLEET_THREADS; s < p->slots; s += OWN ? p->slots : FLEET_THREADS) {
                slot q = fleet_slot(p, s);
                float acc[16];
                GPU_UNROLL for (int e = 0; e < 16; e++) acc[e] = at > 0 && e / 4 < q.rows ? v_mul(clip, j->grad[q.p + e / 4 * q.ldp + e % 4]) : 0.0f;
                if (n > 0) fleet_grad(b, &q, n, acc);
                if (!update) {
                    GPU_UNROLL for (int e = 0; e < 16; e++) {
                        if (e / 4 < q.rows) j->grad[q.p + e / 4 * q.ldp + e % 4] = acc[e];
                    }
                } else if (OWN) {
                    fleet_update(b, &q, rule, acc, m[o], v[o]);
                } else {
                    float mm[16], vv[16];
                    GPU_UNROLL for (int e = 0; e < 16; e++) {
                        if (e / 4 < q.rows) mm[e] = j->m[q.p + e / 4 * q.ldp + e % 4], vv[e] = j->v[q.p + e / 4 * q.ldp + e % 4];
                    }
                    fleet_update(b, &q, rule, acc, mm, vv);
                    GPU_UNROLL for (int e = 0; e < 16; e++) {
                        if (e / 4 < q.rows) j->m[q.p + e / 4 * q.ldp + e % 4] = mm[e], j->v[q.p + e / 4 * q.ldp + e % 4] = vv[e];
                    }
                }
            }
        }
    }
}

/* Epochs from..to-1 of a job (fewer if it has fewer, or stops early). */
GPU_KERNEL(NAME(neap_fleet_train), fleet_launch, FLEET_THREADS, OWN == 2 || (OWN == 4 && FLEET_THREADS == 128) ? 2 : 1) {
    fleet_job *j = &a.jobs[gpu_block()];
    const int from = a.from, to = a.to;
    if (j->ended || from >= j->epochs) return;
    block b = fleet_block(j->plan, j->w);
    if (OWN) b.w = b.sh; /* known at compile time: loads become shared-memory loads */
    const neap_plan *p = b.p;
    float m[OWN ? OWN : 1][16], v[OWN ? OWN : 1][16];
    int *flag = (int *)(b.sh + p->flags);
    fleet_tally *tally = fleet_tally_of(&b);
    int done = from, enough = 0;
    if (b.t == 0) tally->t = j->t, tally->best_loss = j->best_loss, tally->best_epoch = j->best_epoch;
    GPU_UNROLL for (int o = 0; o < OWN; o++) {
        int s = b.t + o * FLEET_THREADS;
        if (s >= p->slots) continue;
        slot q = fleet_slot(p, s);
        GPU_UNROLL for (int e = 0; e < 16; e++) {
            if (e / 4 < q.rows) m[o][e] = j->m[q.p + e / 4 * q.ldp + e % 4], v[o][e] = j->v[q.p + e / 4 * q.ldp + e % 4];
        }
    }
    fleet_copy(&b, j->w, 1);
    for (int epoch = from; epoch < to && epoch < j->epochs && !enough; epoch++) {
        if (b.t == 0) tally->sum = 0.0;
        for (int64_t at = 0; at < j->train.n; at += j->batch) {
            int batch = j->train.n - at < j->batch ? (int)(j->train.n - at) : j->batch;
            NAME(fleet_step)(&b, j, j->shuffle ? &j->perms[epoch] : (const neap_perm *)0, at, batch, m, v);
        }
        if (b.t == 0) j->train_loss[epoch] = fleet_mean(&b, j->train.n);
        done = epoch + 1;
        if (j->val.n > 0) {
            fleet_total_loss(&b, &j->hyper, &j->val);
            if (b.t == 0) {
                double loss = j->val_loss[epoch] = fleet_mean(&b, j->val.n);
                flag[0] = loss < tally->best_loss;
                if (flag[0]) tally->best_loss = loss, tally->best_epoch = done;
                flag[1] = !flag[0] && j->patience > 0 && done - tally->best_epoch >= j->patience;
            }
            gpu_sync(8);
            int better = flag[0];
            enough = flag[1];
            if (better && j->best && p->weights_shared) fleet_copy(&b, j->best, 0);
            if (better && j->best && !p->weights_shared)
                for (size_t i = (size_t)b.t; i < p->net.params; i += (size_t)FLEET_THREADS) j->best[i] = b.w[i];
        }
    }
    fleet_copy(&b, j->w, 0);
    GPU_UNROLL for (int o = 0; o < OWN; o++) {
        int s = b.t + o * FLEET_THREADS;
        if (s >= p->slots) continue;
        slot q = fleet_slot(p, s);
        GPU_UNROLL for (int e = 0; e < 16; e++) {
            if (e / 4 < q.rows) j->m[q.p + e / 4 * q.ldp + e % 4] = m[o][e], j->v[q.p + e / 4 * q.ldp + e % 4] = v[o][e];
        }
    }
    if (b.t == 0) j->t = tally->t, j->epochs_done = done, j->best_epoch = tally->best_epoch, j->best_loss = tally->best_loss, j->ended = enough;
}

#undef NAME
#undef NAME_
#undef NAME__
