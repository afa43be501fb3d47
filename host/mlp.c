/* mlp.c: models of mlp.h: life, small steps, checkpoints. */
#include "host/mlp.h"
#include "host/sha256.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert((int)NEAP_KERN_MEMORY == (int)NEAP_ERR_MEMORY && (int)NEAP_KERN_INVALID == (int)NEAP_ERR_INVALID &&
                   (int)NEAP_KERN_IO == (int)NEAP_ERR_IO && (int)NEAP_KERN_CANCELLED == (int)NEAP_ERR_CANCELLED &&
                   (int)NEAP_KERN_UNSUPPORTED == (int)NEAP_ERR_UNSUPPORTED,
               "kernels/ and host/ speak of the same errors");

const char *const neap_act_names[] = {"linear", "relu", "leaky_relu", "tanh", "gelu", NULL};
const char *const neap_loss_names[] = {"mse", "mae", "huber", NULL};
const char *const neap_opt_names[] = {"adam", "adamw", "sgd", NULL};
const char *const neap_norm_names[] = {"none", "affine", "delta", NULL};

neap_hyper neap_hyper_default(void) {
    return (neap_hyper){.opt = NEAP_OPT_ADAM, .loss = NEAP_LOSS_MSE, .lr = 1e-3f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .huber = 1.0f};
}

static float *zeros(size_t n) {
    float *p = aligned_alloc(64, (n * sizeof *p + 63) / 64 * 64);
    if (p) memset(p, 0, n * sizeof *p);
    return p;
}

int neap_mlp_new(neap_mlp **out, const int *sizes, int layers, int act, float leak, uint64_t seed) {
    neap_net net;
    int rc = neap_net_init(&net, sizes, layers, act, leak);
    if (rc) return rc;
    neap_mlp *m = calloc(1, sizeof *m);
    if (!m) return NEAP_ERR_MEMORY;
    atomic_init(&m->refs, 1);
    m->net = net;
    m->act = act;
    m->seed = seed;
    m->hyper = neap_hyper_default();
    m->kernels = neap_kernels_cpu();
    m->state.w = zeros(net.params), m->state.m = zeros(net.params), m->state.v = zeros(net.params);
    if (!m->state.w || !m->state.m || !m->state.v) {
        neap_mlp_unref(m);
        return NEAP_ERR_MEMORY;
    }
    neap_net_seed(&m->net, m->state.w, seed);
    *out = m;
    return 0;
}

neap_mlp *neap_mlp_ref(neap_mlp *m) {
    atomic_fetch_add(&m->refs, 1);
    return m;
}

void neap_mlp_unref(neap_mlp *m) {
    if (!m || atomic_fetch_sub(&m->refs, 1) != 1) return;
    free(m->state.w), free(m->state.m), free(m->state.v);
    neap_work_free(&m->work);
    free(m);
}

int neap_mlp_clone(neap_mlp **out, const neap_mlp *m) {
    int sizes[NEAP_MAX_LAYERS + 1] = {m->net.in};
    for (int i = 0; i < m->net.layers; i++) sizes[i + 1] = m->net.layer[i].out;
    neap_mlp *c;
    int rc = neap_mlp_new(&c, sizes, m->net.layers, m->act, m->net.leak, m->seed);
    if (rc) return rc;
    size_t bytes = m->net.params * sizeof(float);
    memcpy(c->state.w, m->state.w, bytes), memcpy(c->state.m, m->state.m, bytes), memcpy(c->state.v, m->state.v, bytes);
    c->state.t = m->state.t;
    c->hyper = m->hyper;
    c->epochs = m->epochs;
    *out = c;
    return 0;
}

int neap_mlp_room(neap_mlp *m, int rows) {
    if (m->work.rows >= rows) return 0;
    int want = 8;
    while (want < rows) want *= 2;
    neap_work_free(&m->work);
    return neap_work_init(&m->work, &m->net, want, NEAP_CHUNK);
}

/* A narrow first layer reads inputs in full lanes: its rows must be padded. */
static int needs_padding(const neap_net *net, long ldx) { return net->layer[0].narrow && ldx < net->ldx; }

static void pad(const neap_net *net, const float *x, long ldx, int n, float *to) {
    for (int r = 0; r < n; r++) {
        memcpy(to + r * net->ldx, x + r * ldx, (size_t)net->in * sizeof *x);
        for (long i = net->in; i < net->ldx; i++) to[r * net->ldx + i] = 0.0f;
    }
}

int neap_mlp_step(neap_mlp *m, const neap_hyper *h, const float *x, long ldx, const float *y, int n, double *loss) {
    if (n < 1) return NEAP_ERR_INVALID;
    int rc = neap_mlp_room(m, n);
    if (rc) return rc;
    if (m->net.layer[0].narrow) { /* also when ldx is padded: the padding may not be zero */
        pad(&m->net, x, ldx, n, m->work.x);
        x = m->work.x;
        ldx = m->net.ldx;
    }
    *loss = m->kernels->step(&m->net, h, &m->state, x, ldx, y, n, &m->work) / ((double)n * m->net.out);
    return 0;
}

int neap_mlp_predict(neap_mlp *m, const float *x, long ldx, int64_t n, float *out) {
    int rc = neap_mlp_room(m, n < NEAP_CHUNK ? (int)n + 1 : NEAP_CHUNK);
    if (rc) return rc;
    int padding = needs_padding(&m->net, ldx) || m->net.layer[0].narrow;
    for (int64_t at = 0; at < n; at += NEAP_CHUNK) {
        int rows = n - at < NEAP_CHUNK ? (int)(n - at) : NEAP_CHUNK;
        const float *in = x + at * ldx;
        if (padding) pad(&m->net, in, ldx, rows, m->work.x);
        m->kernels->forward(&m->net, m->state.w, padding ? m->work.x : in, padding ? m->net.ldx : ldx, rows, out + at * m->net.out, &m->work);
    }
    return 0;
}

void neap_mlp_hash(const neap_mlp *m, char out[65]) {
    neap_sha256 sum;
    neap_sha256_init(&sum);
    for (int i = 0; i < m->net.layers; i++) {
        const neap_layer *l = &m->net.layer[i];
        for (int o = 0; o < l->out; o++)
            for (int k = 0; k < l->in; k++)
                neap_sha256_add(&sum, &m->state.w[l->w + (l->narrow ? (size_t)o * l->ld + k : (size_t)k * l->ld + o)], sizeof(float));
        neap_sha256_add(&sum, m->state.w + l->b, (size_t)l->out * sizeof(float));
    }
    neap_sha256_hex(&sum, out);
}

/* ---- checkpoints ---- */

#define FORMAT "mlp 1"

/* Adds one parameter array under a prefix. */
static int add_params(const neap_mlp *m, neap_safe *s, const float *from, const char *prefix) {
    for (int i = 0; i < m->net.layers; i++) {
        const neap_layer *l = &m->net.layer[i];
        neap_tensor weight, bias;
        char name[64];
        int rc = neap_tensor_new(&weight, NEAP_F32, 2, (int64_t[]){l->out, l->in});
        if (rc) return rc;
        rc = neap_tensor_new(&bias, NEAP_F32, 1, (int64_t[]){l->out});
        if (!rc) {
            neap_net_export(&m->net, from, i, neap_tensor_data(&weight), neap_tensor_data(&bias));
            snprintf(name, sizeof name, "%slayer%d.weight", prefix, i + 1);
            rc = neap_safe_add(s, name, &weight);
            snprintf(name, sizeof name, "%slayer%d.bias", prefix, i + 1);
            if (!rc) rc = neap_safe_add(s, name, &bias);
            neap_tensor_unref(&bias);
        }
        neap_tensor_unref(&weight);
        if (rc) return rc;
    }
    return 0;
}

int neap_mlp_to_safe(const neap_mlp *m, neap_safe *s, int optimizer) {
    char text[64];
    int rc = neap_safe_add_meta(s, "neap.format", FORMAT);
    if (!rc) rc = neap_safe_add_meta(s, "neap.act", neap_act_names[m->act]);
    snprintf(text, sizeof text, "%.9g", (double)m->net.leak);
    if (!rc) rc = neap_safe_add_meta(s, "neap.leak", text);
    snprintf(text, sizeof text, "%d", m->net.layers);
    if (!rc) rc = neap_safe_add_meta(s, "neap.layers", text);
    snprintf(text, sizeof text, "%llu", (unsigned long long)m->seed);
    if (!rc) rc = neap_safe_add_meta(s, "neap.seed", text);
    snprintf(text, sizeof text, "%lld", (long long)m->epochs);
    if (!rc) rc = neap_safe_add_meta(s, "neap.epochs", text);
    if (!rc) rc = add_params(m, s, m->state.w, "");
    if (!rc && optimizer) {
        snprintf(text, sizeof text, "%lld", (long long)m->state.t);
        rc = neap_safe_add_meta(s, "neap.steps", text);
        if (!rc) rc = add_params(m, s, m->state.m, "adam.m.");
        if (!rc) rc = add_params(m, s, m->state.v, "adam.v.");
    }
    return rc;
}

static int corrupt(neap_safe *s, const char *what) {
    snprintf(s->error, sizeof s->error, "%s", what);
    return NEAP_ERR_CORRUPT;
}

/* Reads a layer's tensors: sizes must be [out x in] and [out]; NULL if missing or different. */
static const neap_tensor *find(const neap_safe *s, const char *prefix, int layer, const char *what, int dims) {
    char name[64];
    snprintf(name, sizeof name, "%slayer%d.%s", prefix, layer + 1, what);
    const neap_tensor *t = neap_safe_get(s, name);
    return t && t->dtype == NEAP_F32 && t->dims == dims ? t : NULL;
}

static int take_params(const neap_mlp *m, neap_safe *s, float *to, const char *prefix) {
    for (int i = 0; i < m->net.layers; i++) {
        const neap_tensor *w = find(s, prefix, i, "weight", 2), *b = find(s, prefix, i, "bias", 1);
        if (!w || !b || w->shape[0] != m->net.layer[i].out || w->shape[1] != m->net.layer[i].in || b->shape[0] != w->shape[0])
            return corrupt(s, "a layer's weight or bias is missing or has the wrong shape");
        neap_net_import(&m->net, to, i, neap_tensor_data(w), neap_tensor_data(b));
    }
    return 0;
}

int neap_mlp_from_safe(neap_mlp **out, neap_safe *s) {
    int sizes[NEAP_MAX_LAYERS + 1], layers = 0, act = NEAP_ACT_RELU;
    const char *format = neap_safe_get_meta(s, "neap.format"), *text;
    for (int i = 0; i < s->metas; i++)
        if (!strncmp(s->meta[i].key, "neap.", 5) && !s->checked)
            return corrupt(s, "it is one of neap's, but its checksum is gone: the file is damaged");
    if (format && strcmp(format, FORMAT)) return corrupt(s, "it is no mlp checkpoint, or of a newer format");
    const neap_tensor *w;
    while (layers < NEAP_MAX_LAYERS && (w = find(s, "", layers, "weight", 2))) {
        if (w->shape[0] > 65536 || w->shape[1] > 65536) return corrupt(s, "a layer is wider than 65536");
        if (layers && w->shape[1] != sizes[layers]) return corrupt(s, "its layers do not fit together");
        sizes[layers] = (int)w->shape[1];
        sizes[++layers] = (int)w->shape[0];
    }
    if (layers == 0) return corrupt(s, "it holds no network (no tensor 'layer1.weight' [out x in] of dtype F32)");
    if ((text = neap_safe_get_meta(s, "neap.layers")) && atoi(text) != layers) return corrupt(s, "a layer is missing");
    if ((text = neap_safe_get_meta(s, "neap.act"))) {
        for (act = 0; neap_act_names[act] && strcmp(neap_act_names[act], text);) act++;
        if (!neap_act_names[act]) return corrupt(s, "its activation is unknown");
    }
    float leak = (text = neap_safe_get_meta(s, "neap.leak")) ? strtof(text, NULL) : 0.01f;
    uint64_t seed = (text = neap_safe_get_meta(s, "neap.seed")) ? strtoull(text, NULL, 10) : 0;
    neap_mlp *m;
    int rc = neap_mlp_new(&m, sizes, layers, act, leak, seed);
    if (rc == NEAP_ERR_INVALID) return corrupt(s, "a layer has no inputs or outputs");
    if (rc) return rc;
    rc = take_params(m, s, m->state.w, "");
    if ((text = neap_safe_get_meta(s, "neap.epochs"))) m->epochs = strtoll(text, NULL, 10);
    if (!rc && (text = neap_safe_get_meta(s, "neap.steps"))) {
        m->state.t = strtoll(text, NULL, 10);
        rc = take_params(m, s, m->state.m, "adam.m.");
        if (!rc) rc = take_params(m, s, m->state.v, "adam.v.");
    }
    if (rc) neap_mlp_unref(m);
    else *out = m;
    return rc;
}
