#include "service.h"

struct service the_service;
