#include "serve.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "page.h"
#include "show.h"

#define CLIENTS_MAX     16
#define REQUEST_BYTES   4096
#define PATIENCE_SECOND 5

/* Whoever is slow keeps nobody else waiting, and is sent away in the end. */
struct client {
    int descriptor; /* -1: none */
    double until;
    size_t got;
    char request[REQUEST_BYTES];
    char *answer; /* NULL: the request is not complete */
    size_t length, sent;
};

static struct client clients[CLIENTS_MAX];
static int client_count;

int serve_listen(const char *at, const char **wrong)
{
    struct address address;
    *wrong = address_parse(&address, at);
    if (!*wrong && (address.path || !strrchr(at, ':')))
        *wrong = "an address to serve at is host:port";
    if (*wrong)
        return -1;
    char port[16];
    snprintf(port, sizeof(port), "%d", address.port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found;
    int error = getaddrinfo(address.host, port, &hints, &found);
    if (error) {
        *wrong = gai_strerror(error);
        return -1;
    }
    int listener = socket(found->ai_family,
                          found->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, 0),
        yes = 1;
    if (listener < 0 ||
        setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)) < 0 ||
        bind(listener, found->ai_addr, found->ai_addrlen) < 0 ||
        listen(listener, CLIENTS_MAX) < 0) {
        *wrong = strerror(errno);
        if (listener >= 0)
            close(listener);
        listener = -1;
    }
    freeaddrinfo(found);
    return listener;
}

/* ---- answers --------------------------------------------------------------------- */

struct answer {
    const char *status, *type;
    void (*write)(FILE *to, const struct watched *servers, int count);
};

static void write_nothing(FILE *to, const struct watched *servers, int count)
{
    (void)to, (void)servers, (void)count;
}

/* Of each server, or why it is not well. */
static void write_health(FILE *to, const struct watched *servers, int count)
{
    for (int i = 0; i < count; i++)
        fprintf(to, "%s: %s\n", servers[i].name,
                servers[i].error[0] ? servers[i].error : "ok");
}

static bool all_well(const struct watched *servers, int count)
{
    for (int i = 0; i < count; i++)
        if (servers[i].error[0])
            return false;
    return true;
}

#define PLAIN "text/plain; charset=utf-8"

static struct answer choose(const char *path, const struct watched *servers, int count)
{
    size_t length = strcspn(path, "? ");
    if (length == 1)
        return (struct answer){"200 OK", "text/html; charset=utf-8", page_write};
    if (length == 8 && strncmp(path, "/metrics", length) == 0)
        return (struct answer){"200 OK", "text/plain; version=0.0.4; charset=utf-8",
                               show_prometheus};
    if (length == 8 && strncmp(path, "/healthz", length) == 0)
        return (struct answer){all_well(servers, count) ? "200 OK"
                                                        : "503 Service Unavailable",
                               PLAIN, write_health};
    return (struct answer){"404 Not Found", PLAIN, write_nothing};
}

/* Without memory there is no answer, and the connection ends. */
static void make_answer(struct client *client, const struct watched *servers, int count)
{
    struct answer answer = {"400 Bad Request", PLAIN, write_nothing};
    bool head = strncmp(client->request, "HEAD /", 6) == 0;
    if (head || strncmp(client->request, "GET /", 5) == 0)
        answer = choose(strchr(client->request, '/'), servers, count);
    else if (strchr(client->request, ' '))
        answer.status = "405 Method Not Allowed";
    char *body = NULL;
    size_t body_length;
    FILE *to = open_memstream(&body, &body_length);
    if (!to)
        return;
    answer.write(to, servers, count);
    fclose(to);
    to = open_memstream(&client->answer, &client->length);
    if (to) {
        fprintf(
            to,
            "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
            "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
            "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'\r\n"
            "Connection: close\r\n\r\n",
            answer.status, answer.type, body_length);
        if (!head)
            fwrite(body, 1, body_length, to);
        fclose(to);
    }
    free(body);
}

/* ---- clients --------------------------------------------------------------------- */

static void forget(struct client *client)
{
    close(client->descriptor);
    free(client->answer);
    *client = clients[--client_count];
}

/* Where all places are taken, whoever has had one longest makes room. */
static void make_room(void)
{
    struct client *oldest = clients;
    for (int i = 1; i < client_count; i++)
        if (clients[i].until < oldest->until)
            oldest = &clients[i];
    if (client_count == CLIENTS_MAX)
        forget(oldest);
}

static void accept_client(int listener)
{
    int descriptor = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (descriptor < 0)
        return;
    make_room();
    struct client *client = &clients[client_count++];
    client->descriptor = descriptor;
    client->until = steady_seconds() + PATIENCE_SECOND;
    client->answer = NULL;
    client->got = client->sent = client->length = 0;
}

/* False: there is nothing to be done for it any more. */
static bool read_request(struct client *client, const struct watched *servers, int count)
{
    ssize_t got = read(client->descriptor, client->request + client->got,
                       REQUEST_BYTES - 1 - client->got);
    if (got <= 0)
        return got < 0 && (errno == EAGAIN || errno == EINTR);
    client->got += (size_t)got;
    client->request[client->got] = '\0';
    if (!strstr(client->request, "\r\n\r\n") && !strstr(client->request, "\n\n") &&
        client->got < REQUEST_BYTES - 1)
        return true;
    make_answer(client, servers, count);
    return client->answer != NULL;
}

static bool write_answer(struct client *client)
{
    ssize_t sent = send(client->descriptor, client->answer + client->sent,
                        client->length - client->sent, MSG_NOSIGNAL);
    if (sent < 0)
        return errno == EAGAIN || errno == EINTR;
    client->sent += (size_t)sent;
    return client->sent < client->length;
}

static void attend(struct client *client, short ready, const struct watched *servers,
                   int count)
{
    bool goes_on = steady_seconds() < client->until;
    if (goes_on && ready && !client->answer)
        goes_on = read_request(client, servers, count);
    else if (goes_on && ready)
        goes_on = write_answer(client);
    if (!goes_on)
        forget(client);
}

void serve_until(int listener, double moment, const struct watched *servers, int count)
{
    for (double left; (left = moment - steady_seconds()) > 0;) {
        struct pollfd polled[1 + CLIENTS_MAX] = {{.fd = listener, .events = POLLIN}};
        for (int i = 0; i < client_count; i++)
            polled[i + 1] =
                (struct pollfd){.fd = clients[i].descriptor,
                                .events = clients[i].answer ? POLLOUT : POLLIN};
        poll(polled, (nfds_t)client_count + 1, left < 1 ? (int)(left * 1000) + 1 : 1000);
        /* Backwards: the last one takes the place of one that goes. */
        for (int i = client_count - 1; i >= 0; i--)
            attend(&clients[i], polled[i + 1].revents, servers, count);
        if (polled[0].revents & POLLIN)
            accept_client(listener);
    }
}
