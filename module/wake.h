/* Calls the server's main thread from another one: to do at once what it does at a tick. */
#ifndef RDB_UFFD_MODULE_WAKE_H
#define RDB_UFFD_MODULE_WAKE_H

/* Main thread, at load. Where it cannot be had (no more descriptors), wake_server() does
 * nothing, and the server's own ticks must do. */
void wake_begin(void);
void wake_end(void);
/* The server calls rdb_uffd_tick() as soon as it has time. Any thread. */
void wake_server(void);

#endif
