/* fdatasync.c: what the disk itself takes: appends 2 kB and syncs, COUNT times, into FILE; prints p50 and p99 in milliseconds. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    static char block[2048];
    int n = argc > 2 ? atoi(argv[2]) : 0, fd = n > 0 ? open(argv[1], O_CREAT | O_TRUNC | O_WRONLY, 0600) : -1;
    double *took = n > 0 ? malloc((size_t)n * sizeof *took) : NULL;
    if (fd < 0 || !took) return 1;
    for (int i = 0; i < n; i++) {
        struct timespec a, b;
        clock_gettime(CLOCK_MONOTONIC, &a);
        if (write(fd, block, sizeof block) != sizeof block || fdatasync(fd)) return 1;
        clock_gettime(CLOCK_MONOTONIC, &b);
        took[i] = (double)(b.tv_sec - a.tv_sec) * 1e3 + (double)(b.tv_nsec - a.tv_nsec) / 1e6;
    }
    qsort(took, (size_t)n, sizeof *took, by_size);
    printf("%.3f %.3f\n", took[n / 2], took[n * 99 / 100]);
    free(took);
    return close(fd);
}
