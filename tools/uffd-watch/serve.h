/* Answers browsers and Prometheus with what was seen last: /, /metrics, /healthz. */
#ifndef UFFD_WATCH_SERVE_H
#define UFFD_WATCH_SERVE_H

#include "server.h"

/* Listens at "host:port". Returns a descriptor, or -1 and why in `*wrong`: static text. */
int serve_listen(const char *at, const char **wrong);
/* Answers whoever comes until that moment (steady_seconds()); what is not read or written by
 * then goes on with the next call. `servers` are as they were looked at last. */
void serve_until(int listener, double moment, const struct watched *servers, int count);

#endif
