/* The same, linked as modules were once: what sets a value is a variable by a name that the
 * server may have, too, and then is the server's. */
#define set_value RedisModule_ModuleTypeSetValue
#include "typed.c"
