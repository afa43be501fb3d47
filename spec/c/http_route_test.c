/* http_route_test.c: the router: precedence, parameters, classes, rests, methods, and its refusals. */
#include "spec/c/test.h"
#include "host/http_route.h"
#include <string.h>

static neap_http_router *r;
static neap_http_match m;

static int look(const char *method, const char *path) {
    int found = neap_http_router_match(r, method, path, strlen(path), &m);
    return found == 1 ? m.id : found - 1; /* not found -1, method -2 */
}
static int param(int i, const char *path, const char *name, const char *value) {
    return !strcmp(m.names[i], name) && m.param[i].len == strlen(value) && !memcmp(path + m.param[i].off, value, m.param[i].len);
}
static int add(const char *method, const char *pattern, int id) {
    char err[200] = "";
    int e = neap_http_router_add(r, method, pattern, id, err, sizeof err);
    CHECK(!e == !err[0], "%s", err);
    return e;
}

int main(void) {
    r = neap_http_router_new();
    CHECK(!add("GET", "/", 1));
    CHECK(!add("GET", "/sensors", 2) && !add("POST", "/sensors", 3));
    CHECK(!add("GET", "/sensors/:name", 4) && !add("GET", "/sensors/all", 5) && !add("DELETE", "/sensors/:id", 6));
    CHECK(!add("GET", "/sensors/:name/readings", 7) && !add("GET", "/sensors/all/x", 8));
    CHECK(!add("GET", "/n/:n[%d]", 9) && !add("GET", "/n/:word", 10));
    CHECK(!add("GET", "/files/*path", 11) && !add("GET", "/files/special", 12));
    CHECK(!add("ANY", "/any", 13) && !add("GET", "/any", 14));
    CHECK(!add("GET", "/slash/", 15));
    CHECK(look("GET", "/") == 1 && look("HEAD", "/") == 1);
    CHECK(look("GET", "/sensors") == 2 && look("POST", "/sensors") == 3 && look("GET", "/sensors/") == 2);
    CHECK(look("GET", "/sensors/all") == 5 && look("GET", "/sensors/temp") == 4 && m.nparams == 1 && param(0, "/sensors/temp", "name", "temp"));
    CHECK(look("DELETE", "/sensors/all") == 6 && param(0, "/sensors/all", "id", "all"));
    CHECK(look("GET", "/sensors/all/readings") == 7 && param(0, "/sensors/all/readings", "name", "all"), "steps back from a literal");
    CHECK(look("GET", "/n/12") == 9 && look("GET", "/n/1a") == 10 && look("GET", "/n/") == -1);
    CHECK(look("GET", "/files/a/b.txt") == 11 && param(0, "/files/a/b.txt", "path", "a/b.txt"));
    CHECK(look("GET", "/files/special") == 12 && look("GET", "/files/") == 11 && param(0, "/files/", "path", "") && look("GET", "/files") == 11);
    CHECK(look("PURGE", "/any") == 13 && look("GET", "/any") == 14 && look("HEAD", "/any") == 14);
    CHECK(look("GET", "/slash/") == 15 && look("GET", "/slash") == -1);
    CHECK(look("PUT", "/sensors") == -2 && strstr(m.allow, "GET") && strstr(m.allow, "HEAD") && strstr(m.allow, "POST") && strstr(m.allow, "OPTIONS"),
          "%s", m.allow);
    CHECK(look("GET", "/nothing") == -1 && look("GET", "") == -1 && look("GET", "x") == -1 && look("GET", "//") == -1);
    CHECK(look("GET", "/sensors//readings") == -1, "an empty segment is no parameter");
    CHECK(add("GET", "/sensors/:other", 20) == NEAP_ERR_INVALID && add("GET", "x", 20) == NEAP_ERR_INVALID &&
          add("GET", "/a/:", 20) == NEAP_ERR_INVALID);
    CHECK(add("GET", "/*rest/more", 20) == NEAP_ERR_INVALID && add("GET", "/:a[%q]", 20) == NEAP_ERR_INVALID &&
          add("", "/a", 20) == NEAP_ERR_INVALID);
    CHECK(add("GET", "/a/:1/:2/:3/:4/:5/:6/:7/:8/:9/:10/:11/:12/:13/:14/:15/:16/:17", 20) == NEAP_ERR_INVALID);
    neap_http_router_free(r);
    return test_end("http_route");
}
