/* What commands read and answer, in the ways that several of them share. */
#ifndef RDB_UFFD_MODULE_REPLY_H
#define RDB_UFFD_MODULE_REPLY_H

#include <stdbool.h>

#include "server_api.h"

/* A name and its value, of a map. */
void reply_text(api_context *context, const char *name, const char *value);
void reply_number(api_context *context, const char *name, uint64_t value);

/* "ERR " and the reason. API_OK. */
int reply_error(api_context *context, const char *why);

/* Whether the client can wait for its answer: not in a transaction, nor in a script. */
bool may_block(api_context *context);

/* An optional argument at `arguments[1]`, from `least` to `most`; without one `*number`
 * stays. False when an error was answered: `range_error` or the server's own. */
bool take_number(api_context *context, api_string **arguments, int count, long long least,
                 long long most, const char *range_error, long long *number);

#endif
