/* What was seen, as a page for a browser. */
#ifndef UFFD_WATCH_PAGE_H
#define UFFD_WATCH_PAGE_H

#include <stdio.h>

#include "server.h"

/* Whole, without a script; the browser asks for it anew every two seconds. */
void page_write(FILE *to, const struct watched *servers, int count);

#endif
