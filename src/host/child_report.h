/* What a child tells its parent while it saves, through the server's own pipe. */
#ifndef RDB_UFFD_HOST_CHILD_REPORT_H
#define RDB_UFFD_HOST_CHILD_REPORT_H

#include <stddef.h>
#include <stdint.h>

#include "host/child.h"

/* How large a message is in this server. Main thread, when it is identified. */
void child_report_set_size(size_t bytes);
/* The final message a child sends before it exits, and the one it sends about
 * once a second: keys done, bytes preserved. Never blocks; a full or closed
 * pipe is ignored. Saver's thread. */
enum child_report { CHILD_REPORT_PROGRESS, CHILD_REPORT_DONE };
void child_report_send(int report_pipe, enum child_cause cause, enum child_report kind,
                       uint64_t keys, uint64_t preserved_bytes);
/* What was sent straight to replicas, to a server that counts it. Likewise. */
void child_report_send_output(int report_pipe, uint64_t bytes);

#endif
