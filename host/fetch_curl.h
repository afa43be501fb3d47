/* fetch_curl.h: libcurl, opened when the first request needs it. Linked in, its twenty shared libraries would cost every start of neap five
   milliseconds, also of scripts that never fetch anything. fetch.c includes this in place of <curl/curl.h> and calls curl_load first. */
#ifndef NEAP_FETCH_CURL_H
#define NEAP_FETCH_CURL_H
#define CURL_DISABLE_TYPECHECK
#include <curl/curl.h>
#include <dlfcn.h>
#include <pthread.h>

static struct { /* written once, under curl_once */
    __typeof__(&curl_global_init) global_init;
    __typeof__(&curl_easy_init) easy_init;
    __typeof__(&curl_easy_setopt) easy_setopt;
    __typeof__(&curl_easy_getinfo) easy_getinfo;
    __typeof__(&curl_easy_cleanup) easy_cleanup;
    __typeof__(&curl_easy_strerror) easy_strerror;
    __typeof__(&curl_multi_init) multi_init;
    __typeof__(&curl_multi_setopt) multi_setopt;
    __typeof__(&curl_multi_assign) multi_assign;
    __typeof__(&curl_multi_add_handle) multi_add_handle;
    __typeof__(&curl_multi_remove_handle) multi_remove_handle;
    __typeof__(&curl_multi_socket_action) multi_socket_action;
    __typeof__(&curl_multi_info_read) multi_info_read;
    __typeof__(&curl_multi_cleanup) multi_cleanup;
    __typeof__(&curl_slist_append) slist_append;
    __typeof__(&curl_slist_free_all) slist_free_all;
} curl;
static pthread_once_t curl_once = PTHREAD_ONCE_INIT;
static int curl_ready;

static void curl_open(void) {
    void *so = dlopen("libcurl.so.4", RTLD_NOW | RTLD_LOCAL);
    if (!so) so = dlopen("libcurl-gnutls.so.4", RTLD_NOW | RTLD_LOCAL);
    if (!so) return;
    int missing = 0;
    missing += !(curl.global_init = (__typeof__(&curl_global_init))dlsym(so, "curl_global_init"));
    missing += !(curl.easy_init = (__typeof__(&curl_easy_init))dlsym(so, "curl_easy_init"));
    missing += !(curl.easy_setopt = (__typeof__(&curl_easy_setopt))dlsym(so, "curl_easy_setopt"));
    missing += !(curl.easy_getinfo = (__typeof__(&curl_easy_getinfo))dlsym(so, "curl_easy_getinfo"));
    missing += !(curl.easy_cleanup = (__typeof__(&curl_easy_cleanup))dlsym(so, "curl_easy_cleanup"));
    missing += !(curl.easy_strerror = (__typeof__(&curl_easy_strerror))dlsym(so, "curl_easy_strerror"));
    missing += !(curl.multi_init = (__typeof__(&curl_multi_init))dlsym(so, "curl_multi_init"));
    missing += !(curl.multi_setopt = (__typeof__(&curl_multi_setopt))dlsym(so, "curl_multi_setopt"));
    missing += !(curl.multi_assign = (__typeof__(&curl_multi_assign))dlsym(so, "curl_multi_assign"));
    missing += !(curl.multi_add_handle = (__typeof__(&curl_multi_add_handle))dlsym(so, "curl_multi_add_handle"));
    missing += !(curl.multi_remove_handle = (__typeof__(&curl_multi_remove_handle))dlsym(so, "curl_multi_remove_handle"));
    missing += !(curl.multi_socket_action = (__typeof__(&curl_multi_socket_action))dlsym(so, "curl_multi_socket_action"));
    missing += !(curl.multi_info_read = (__typeof__(&curl_multi_info_read))dlsym(so, "curl_multi_info_read"));
    missing += !(curl.multi_cleanup = (__typeof__(&curl_multi_cleanup))dlsym(so, "curl_multi_cleanup"));
    missing += !(curl.slist_append = (__typeof__(&curl_slist_append))dlsym(so, "curl_slist_append"));
    missing += !(curl.slist_free_all = (__typeof__(&curl_slist_free_all))dlsym(so, "curl_slist_free_all"));
    curl_ready = !missing && curl.global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK; /* once a process: libcurl's own rule */
}

/* Nonzero if libcurl is there and ready. Any thread. */
static inline int curl_load(void) {
    pthread_once(&curl_once, curl_open);
    return curl_ready;
}
#endif
