/* Sizes and offsets of structures, as the debug information of a program says. */
#ifndef RDB_UFFD_TOOLS_DEBUG_INFO_H
#define RDB_UFFD_TOOLS_DEBUG_INFO_H

#include <elfutils/libdw.h>
#include <stdbool.h>

/* Opens the program and its debug information: its own, or the file `debug`, or (NULL) the
 * one that its build id names below /usr/lib/debug. NULL, or why it cannot be had. */
const char *debug_info_open(const char *program, const char *debug);
/* Whether the program exports such a symbol. */
bool debug_info_exports(const char *symbol);

/* The structure of that name (or typedef) that the source file `unit` ("rdb.c") sees. */
bool debug_info_struct(const char *unit, const char *name, Dwarf_Die *structure);
/* The type of a variable that `unit` defines, and what the type of a member leads to:
 * the structure itself, also through pointers. */
bool debug_info_variable(const char *unit, const char *name, Dwarf_Die *structure);
/* What has this name and kind in the unit. */
bool debug_info_is_pointer_to_pointer(Dwarf_Die *structure, const char *member);

/* A member, or "member.of.it": its offset in bits and its size in bits; -1: there is none.
 * "one|other": whichever there is. */
struct debug_member {
    long bit;
    long bits;
};
struct debug_member debug_info_member(Dwarf_Die *structure, const char *path);
long debug_info_bytes(Dwarf_Die *structure);

#endif
