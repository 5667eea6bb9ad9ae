/* What was seen, as text for people, as JSON, or for Prometheus. */
#ifndef UFFD_WATCH_SHOW_H
#define UFFD_WATCH_SHOW_H

#include <stdio.h>

#include "server.h"

/* With the last looks, colours and the last saves on a terminal; plain if `screen` is NULL. */
void show_screen(const struct watched *servers, int count, const struct screen *screen);
/* One line for each, for logs. */
void show_lines(const struct watched *servers, int count);
void show_json(const struct watched *servers, int count);
void show_prometheus(FILE *to, const struct watched *servers, int count);

#endif
