/* redis_conn.c: the client's connection: resolve, connect, log in, notice the loss, wait, again.
     IDLE -> WAITING (timer) -> CONNECTING (resolve, connect, AUTH SELECT SETNAME PING) -> READY -> WAITING ...
   Attempts always start from the timer, so no starting call can end in a callback. hiredis would resolve names by
   blocking; libuv does it on its pool, and the addresses are tried in turn. A server that is still loading its data
   answers PING with LOADING: it is asked again, and commands wait, instead of failing. */
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include "host/redis_priv.h"

enum { LOGIN_AUTH, LOGIN_SELECT, LOGIN_NAME, LOGIN_INFO, LOGIN_PING, LOGIN_SLOTS };

static void on_pace(uv_timer_t *t);
static void connect_next(neap_redis *r);

static void set_state(neap_redis *r, enum neap_redis_state s) {
    r->state = s;
    if (r->o.on_state) r->o.on_state(r->o.ud, s, r->why);
}

static void wait_then_connect(neap_redis *r, uint64_t ms) {
    r->state = NEAP_REDIS_WAITING;
    uv_timer_start(&r->pace, on_pace, ms, 0);
}

/* 50 ms, doubling to 2 s, a quarter either way so that a fleet does not come back in step. */
static uint64_t backoff(const neap_redis *r) {
    uint64_t ms = BACKOFF_MIN_MS;
    for (uint32_t i = 1; i < r->attempts && ms < BACKOFF_MAX_MS; i++) ms *= 2;
    if (ms > BACKOFF_MAX_MS) ms = BACKOFF_MAX_MS;
    return ms * 3 / 4 + (uv_hrtime() >> 8) % (ms / 2 + 1);
}

/* An attempt came to nothing; r->why is set. */
static void attempt_failed(neap_redis *r, int status) {
    uv_timer_stop(&r->pace);
    r->failure = status;
    r->attempts++;
    bool give_up = status != NEAP_ERR_CONNECTION || r->o.once || (!r->ever && r->attempts >= FIRST_TRIES);
    if (give_up) {
        r->state = NEAP_REDIS_IDLE;
        redis_fail_queue(r, status); /* callbacks may queue anew, which makes the state WAITING, or close */
        if (r->state == NEAP_REDIS_CLOSED) return;
        if (r->o.once) return;
        if (!r->ever) r->attempts = 0;
    }
    if (r->ever || r->queue.n) wait_then_connect(r, backoff(r));
    else r->state = NEAP_REDIS_IDLE;
    if (r->o.on_state) r->o.on_state(r->o.ud, r->state, r->why);
}

/* What the connection left behind: half a reply, and the requests that were in flight. */
static void lost(neap_redis *r, const char *why) {
    bool was_ready = r->state == NEAP_REDIS_READY;
    neap_reply *half = r->builder.root;
    r->builder.root = NULL;
    r->builder.sink = NULL;
    if (half && !(r->flight.head && half == r->flight.head->batch)) neap_reply_free(half);
    r->ac = NULL;
    r->uv = NULL;
    r->logging_in = false;
    if (r->state == NEAP_REDIS_CLOSED) return;
    if (!was_ready) {
        while (r->flight.head) { /* only logging-in commands */
            struct request *q = r->flight.head;
            redis_list_remove(&r->flight, q);
            free(q);
        }
        if (++r->ip < r->nips) {
            connect_next(r);
            return;
        }
        char at[160];
        snprintf(r->why, sizeof r->why, "cannot connect to Redis at %s: %s. %s", neap_redis_addr_text(&r->o.addr, at, sizeof at), why,
                 r->o.addr.path ? "Is that server running, and may this user open its socket?"
                                : "Is redis-server running there? REDIS_URL or --redis says where to look; without either, neap starts its own");
        attempt_failed(r, NEAP_ERR_CONNECTION);
        return;
    }
    snprintf(r->why, sizeof r->why, "%s", why);
    r->attempts = 1;
    r->failure = NEAP_ERR_CONNECTION;
    if (r->o.once) r->state = NEAP_REDIS_IDLE;
    else wait_then_connect(r, backoff(r));
    redis_fail_flight(r);
    if (r->state == NEAP_REDIS_CLOSED) return;
    if (r->o.once) redis_fail_queue(r, NEAP_ERR_CONNECTION);
    if (r->state == NEAP_REDIS_CLOSED) return;
    redis_keep_alive(r);
    if (r->o.on_state) r->o.on_state(r->o.ud, r->state, r->why);
}

/* hiredis gave the context up. */
static void on_gone(void *owner) {
    neap_redis *r = owner;
    char why[160];
    const char *text = r->ac->errstr ? r->ac->errstr : "";
    snprintf(why, sizeof why, "%s", r->ac->err && *text ? text : "the socket failed");
    lost(r, why);
}

/* Lets go of the context without on_gone; safe inside hiredis' callbacks. */
static void let_go(neap_redis *r) {
    redisAsyncContext *ac = r->ac;
    if (!ac) return;
    ac->data = NULL;
    neap_redis_uv_detach(r->uv);
    r->ac = NULL;
    r->uv = NULL;
    redisAsyncFree(ac);
}

void redis_conn_drop(neap_redis *r, const char *why) {
    if (!r->ac) return;
    let_go(r);
    lost(r, why);
}

/* ---- logging in ---------------------------------------------------------------------------------------------------- */

static void login_send(neap_redis *r, int step, size_t argc, const char *const *argv) {
    neap_buf b = {0};
    int e = neap_resp_begin(&b, argc);
    for (size_t i = 0; !e && i < argc; i++) e = neap_resp_str(&b, argv[i], strlen(argv[i]));
    struct request *q = e ? NULL : calloc(1, sizeof *q);
    if (q) {
        *q = (struct request){.count = 1, .internal = true, .deadline = UINT64_MAX};
        e = redis_put(r, q, b.data, b.len);
        if (e) free(q);
        else r->login[r->nlogin++] = step;
    }
    if (e || !q) { /* hiredis 0.14 must not lose its context inside its connect callback: the timer ends the attempt */
        r->login_broken = true;
        uv_timer_start(&r->pace, on_pace, 0, 0);
    }
    buf_free(&b);
}

static void login_begin(neap_redis *r) {
    const neap_redis_addr *a = &r->o.addr;
    char db[16];
    snprintf(db, sizeof db, "%d", a->db);
    r->logging_in = true;
    r->nlogin = r->login_at = 0;
    r->is_cluster = r->mapped = r->login_broken = false;
    if (a->password && a->user && *a->user) login_send(r, LOGIN_AUTH, 3, (const char *[]){"AUTH", a->user, a->password});
    else if (a->password) login_send(r, LOGIN_AUTH, 2, (const char *[]){"AUTH", a->password});
    if (a->db) login_send(r, LOGIN_SELECT, 2, (const char *[]){"SELECT", db});
    if (r->name) login_send(r, LOGIN_NAME, 3, (const char *[]){"CLIENT", "SETNAME", r->name});
    if (!r->on_ready && !r->front) login_send(r, LOGIN_INFO, 2, (const char *[]){"INFO", "cluster"});
    login_send(r, LOGIN_PING, 1, (const char *[]){"PING"});
}

static void login_refused(neap_redis *r, int status, const char *text) {
    char at[160];
    neap_redis_addr_text(&r->o.addr, at, sizeof at);
    int sentence = (int)strlen(text); /* without its own full stop */
    if (sentence && text[sentence - 1] == '.') sentence--;
    if (status == NEAP_ERR_AUTH)
        snprintf(r->why, sizeof r->why, "Redis at %s refuses to log in: %.*s. %s", at, sentence, text,
                 r->o.addr.password ? "Check user and password in REDIS_URL (redis://user:password@host:port)"
                                    : "It wants a password: redis://:password@host:port, or REDIS_PASSWORD");
    else snprintf(r->why, sizeof r->why, "Redis at %s: %s", at, text);
    let_go(r);
    while (r->flight.head) {
        struct request *q = r->flight.head;
        redis_list_remove(&r->flight, q);
        free(q);
    }
    r->logging_in = false;
    attempt_failed(r, status);
}

static void login_done(neap_redis *r) {
    if (r->is_cluster && !r->mapped) {
        login_send(r, LOGIN_SLOTS, 2, (const char *[]){"CLUSTER", "SLOTS"});
        neap_redis_uv_flush(r->uv);
        return;
    }
    uv_timer_stop(&r->pace);
    r->logging_in = false;
    r->ever = true;
    r->attempts = 0;
    r->why[0] = 0;
    r->stats.connects++;
    set_state(r, NEAP_REDIS_READY);
    if (r->state != NEAP_REDIS_READY) return;
    if (r->on_ready) r->on_ready(r);
    redis_feed(r);
    redis_keep_alive(r);
}

static bool starts(const neap_reply *reply, const char *word) { return !strncmp(reply->str, word, strlen(word)); }

void redis_conn_login_reply(neap_redis *r, neap_reply *reply) {
    int step = r->login[r->login_at++];
    bool error = reply && reply->type == NEAP_REPLY_ERROR;
    if (!reply) {
        login_refused(r, NEAP_ERR_CONNECTION, "out of memory");
    } else if (error && strstr(reply->str, "max number of clients")) {
        login_refused(r, NEAP_ERR_CONNECTION, "it has too many clients (maxclients)");
    } else if (error && starts(reply, "LOADING") && step == LOGIN_PING) {
        snprintf(r->why, sizeof r->why, "Redis is still loading its data");
        uv_timer_start(&r->pace, on_pace, LOGIN_LOADING_MS, 0);
    } else if (error && (step == LOGIN_AUTH || starts(reply, "NOAUTH") || starts(reply, "WRONGPASS"))) {
        login_refused(r, NEAP_ERR_AUTH, reply->str);
    } else if (error && step == LOGIN_SELECT) {
        login_refused(r, NEAP_ERR_REPLY, reply->str);
    } else if (step == LOGIN_INFO) {
        r->is_cluster = !error && reply->type == NEAP_REPLY_STRING && strstr(reply->str, "cluster_enabled:1");
    } else if (step == LOGIN_SLOTS) {
        if (error || reply->type != NEAP_REPLY_ARRAY || redis_cluster_begin(r, reply)) {
            login_refused(r, NEAP_ERR_REPLY, error ? reply->str : "its answer to CLUSTER SLOTS is of no use");
        } else {
            r->mapped = true;
            login_done(r);
        }
    } else if (step == LOGIN_PING) {
        login_done(r); /* BUSY, MISCONF and the like answer here too: the connection is good */
    }
    neap_reply_free(reply);
}

/* ---- connecting ---------------------------------------------------------------------------------------------------- */

static void on_connect(const redisAsyncContext *ac, int status) {
    neap_redis *r = ac->data;
    if (!r || status != REDIS_OK) return;                 /* on_gone follows with the reason */
    if (!r->o.addr.path) redisEnableKeepAlive(&r->ac->c); /* on a unix socket it would end the context */
    login_begin(r);
    neap_redis_uv_flush(r->uv);
}

static void attempt(neap_redis *r, redisAsyncContext *ac) {
    char why[160] = "out of memory";
    r->ac = NULL;
    if (ac && !ac->err) {
        r->uv = neap_redis_uv_attach(r->loop, ac, on_gone, r);
        if (r->uv) {
            r->ac = ac;
            ac->data = r;
            if (!r->on_ready) neap_reply_attach(ac->c.reader, &r->builder);
            neap_redis_uv_ref(r->uv, r->held || r->queue.n > 0);
            redisAsyncSetConnectCallback(ac, on_connect);
            return;
        }
        snprintf(why, sizeof why, "the event loop refuses its socket");
    } else if (ac) {
        snprintf(why, sizeof why, "%s", ac->errstr);
    }
    if (ac) redisAsyncFree(ac);
    lost(r, why);
}

static void connect_next(neap_redis *r) { attempt(r, redisAsyncConnect(r->ips[r->ip], r->o.addr.port)); }

static void on_resolved(uv_getaddrinfo_t *req, int status, struct addrinfo *res) {
    neap_redis *r = req->data;
    free(req);
    if (!r) { /* closed or timed out meanwhile */
        uv_freeaddrinfo(res);
        return;
    }
    r->lookup = NULL;
    int n = 0;
    for (struct addrinfo *a = res; a; a = a->ai_next) n++;
    free(r->ips);
    r->nips = r->ip = 0;
    r->ips = n ? calloc((size_t)n, sizeof *r->ips) : NULL;
    for (struct addrinfo *a = res; a && r->ips; a = a->ai_next)
        if (!uv_ip_name(a->ai_addr, r->ips[r->nips], sizeof r->ips[0])) r->nips++;
    uv_freeaddrinfo(res);
    if (r->nips) {
        connect_next(r);
        return;
    }
    char why[128];
    snprintf(why, sizeof why, "the host name means nothing here (%s)", status ? uv_strerror(status) : "no address");
    lost(r, why);
}

static void start(neap_redis *r) {
    const neap_redis_addr *a = &r->o.addr;
    r->nips = r->ip = 0;
    set_state(r, NEAP_REDIS_CONNECTING);
    if (r->state != NEAP_REDIS_CONNECTING) return;
    uv_timer_start(&r->pace, on_pace, r->o.connect_ms, 0);
    if (a->path) {
        if (strlen(a->path) >= sizeof((struct sockaddr_un *)0)->sun_path)
            lost(r, "the socket's path is longer than the 107 bytes that the system allows");
        else attempt(r, redisAsyncConnectUnix(a->path));
        return;
    }
    struct in6_addr any;
    if (!uv_inet_pton(AF_INET, a->host, &any) || !uv_inet_pton(AF_INET6, a->host, &any)) {
        attempt(r, redisAsyncConnect(a->host, a->port));
        return;
    }
    r->lookup = calloc(1, sizeof *r->lookup);
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    if (r->lookup) r->lookup->data = r;
    if (!r->lookup || uv_getaddrinfo(r->loop, r->lookup, on_resolved, a->host, NULL, &hints)) {
        free(r->lookup);
        r->lookup = NULL;
        lost(r, "the host name cannot be looked up");
    }
}

static void forget_lookup(neap_redis *r) {
    if (!r->lookup) return;
    r->lookup->data = NULL;
    uv_cancel((uv_req_t *)r->lookup);
    r->lookup = NULL;
}

static void on_pace(uv_timer_t *t) {
    neap_redis *r = t->data;
    if (r->state == NEAP_REDIS_WAITING) {
        start(r);
    } else if (r->state == NEAP_REDIS_CONNECTING && r->logging_in && r->login_broken) {
        let_go(r);
        lost(r, "out of memory");
    } else if (r->state == NEAP_REDIS_CONNECTING && r->logging_in && r->login_at == r->nlogin) { /* was LOADING */
        r->nlogin = r->login_at = 0;
        login_send(r, LOGIN_PING, 1, (const char *[]){"PING"});
        neap_redis_uv_flush(r->uv);
        if (r->ac && !r->login_broken) uv_timer_start(&r->pace, on_pace, r->o.connect_ms, 0);
    } else if (r->state == NEAP_REDIS_CONNECTING) {
        forget_lookup(r);
        if (r->ac) let_go(r);
        lost(r, "no answer to connecting in time");
    }
}

void redis_conn_want(neap_redis *r) {
    if (r->state != NEAP_REDIS_IDLE) return;
    r->attempts = 0;
    wait_then_connect(r, 0);
}

void redis_conn_close(neap_redis *r) {
    forget_lookup(r);
    let_go(r);
    neap_reply *half = r->builder.root;
    r->builder.root = NULL;
    if (half && !(r->flight.head && half == r->flight.head->batch)) neap_reply_free(half);
}
