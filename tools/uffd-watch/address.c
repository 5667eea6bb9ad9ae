#include "address.h"

#include <stdlib.h>
#include <string.h>

#define PORT_DEFAULT 6379
#define PORT_MAX     65535

static const char *take_host(struct address *address, const char *host, size_t length)
{
    if (length >= sizeof(address->host))
        return "the name of the host is too long";
    memcpy(address->host, host, length);
    address->host[length] = '\0';
    if (!length)
        strcpy(address->host, "127.0.0.1");
    return NULL;
}

static const char *take_port(struct address *address, const char *text)
{
    size_t digits = strspn(text, "0123456789");
    address->port = digits && digits <= 5 && !text[digits] ? atoi(text) : 0;
    if (address->port < 1 || address->port > PORT_MAX)
        return "a port is a number from 1 to 65535";
    return NULL;
}

/* "[::1]" or "[::1]:port" */
static const char *take_bracketed(struct address *address, const char *name)
{
    const char *end = strchr(name, ']');
    if (!end || end == name + 1 || (end[1] && end[1] != ':'))
        return "an address in brackets is [address]:port";
    const char *wrong = take_host(address, name + 1, (size_t)(end - name - 1));
    return wrong || !end[1] ? wrong : take_port(address, end + 2);
}

const char *address_parse(struct address *address, const char *name)
{
    const char *colon = strchr(name, ':');
    address->path = NULL;
    address->port = PORT_DEFAULT;
    if (!*name)
        return "an empty name";
    if (strchr(name, '/')) {
        address->path = name;
        return NULL;
    }
    if (*name == '[')
        return take_bracketed(address, name);
    /* More than one: an address of IPv6, which leaves no room for a port. */
    if (!colon || strchr(colon + 1, ':'))
        return take_host(address, name, strlen(name));
    const char *wrong = take_host(address, name, (size_t)(colon - name));
    return wrong ? wrong : take_port(address, colon + 1);
}
