/* detect_line.h: a linear forecaster that learns online by recursive least squares with forgetting: exact, no learning
   rate, right within a few dozen rows, where a network needs hundreds. Errors are clipped at 1 before they teach, so
   one outlier moves it little. Plain data. */
#ifndef NEAP_DETECT_LINE_H
#define NEAP_DETECT_LINE_H
#include "host/detect_io.h"

enum { NEAP_DETECT_LINE_IN = 10 };

typedef struct neap_detect_line {
    double w[NEAP_DETECT_LINE_IN];
    double cov[NEAP_DETECT_LINE_IN][NEAP_DETECT_LINE_IN]; /* inverse of the inputs' second moments, kept symmetric */
} neap_detect_line;

void neap_detect_line_init(neap_detect_line *l);
double neap_detect_line_predict(const neap_detect_line *l, const double x[NEAP_DETECT_LINE_IN]);
/* Learns one pair. forget: 0.999 = a memory of about 1,000 rows. */
void neap_detect_line_learn(neap_detect_line *l, const double x[NEAP_DETECT_LINE_IN], double y, double forget);
void neap_detect_line_io(neap_detect_io *io, neap_detect_line *l);
#endif
