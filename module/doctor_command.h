/* The doctor (reporting/doctor.h) as the server's clients and its log see it. */
#ifndef RDB_UFFD_MODULE_DOCTOR_COMMAND_H
#define RDB_UFFD_MODULE_DOCTOR_COMMAND_H

#include "server_api.h"

/* UFFD.DOCTOR: lines for people; for programs, which ask for RESP3, maps. */
int doctor_command(api_context *context, api_string **arguments, int count);
/* Whatever is found missing, each on one line with its remedy, the first one after
 * `before`. Returns how many lines there were. */
size_t doctor_log_failures(api_context *context, const char *before);

#endif
