/* What was seen, as text for people, as JSON, or for Prometheus. */
#ifndef UFFD_WATCH_SHOW_H
#define UFFD_WATCH_SHOW_H

#include "server.h"

void show_screen(const struct watched *servers, int count);
/* One line for each, for logs. */
void show_lines(const struct watched *servers, int count);
void show_json(const struct watched *servers, int count);
void show_prometheus(const struct watched *servers, int count);

#endif
