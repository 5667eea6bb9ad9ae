#include "answers.h"

#include "fill.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct server *answering_start(const char *config)
{
    needs_module();
    struct server *server = server_start(&(struct server_options){
        .config = format_text("save \"\"\n%s%s", FILL_CONFIG, config), .fault = ""});
    server_ok(server, "DEBUG POPULATE %d key 100", ANSWER_KEYS);
    return server;
}

redisReply *answer_field(redisReply *map, const char *name)
{
    CHECK(map->type == REDIS_REPLY_ARRAY && map->elements % 2 == 0, "not a flat map");
    for (size_t i = 0; i < map->elements; i += 2)
        if (strcmp(map->element[i]->str, name) == 0)
            return map->element[i + 1];
    fail("there is no field %s", name);
}

const char *answer_text(redisReply *map, const char *name)
{
    redisReply *value = answer_field(map, name);
    CHECK(value->type == REDIS_REPLY_STRING || value->type == REDIS_REPLY_STATUS,
          "%s is no text", name);
    return value->str;
}

long long answer_number(redisReply *map, const char *name)
{
    redisReply *value = answer_field(map, name);
    CHECK(value->type == REDIS_REPLY_INTEGER, "%s is no number", name);
    return value->integer;
}

redisReply *last_save(struct server *server)
{
    redisReply *history = server_ok(server, "UFFD.HISTORY 1");
    CHECK(history->elements == 1, "%d saves", (int)history->elements);
    return history->element[0];
}

void check_last_save(struct server *server, const char *cause, const char *result)
{
    redisReply *save = last_save(server);
    CHECK(strcmp(answer_text(save, "cause"), cause) == 0 &&
              strcmp(answer_text(save, "result"), result) == 0,
          "the last save: cause %s, result %s; expected %s, %s",
          answer_text(save, "cause"), answer_text(save, "result"), cause, result);
}

const char *finding(struct server *server, const char *name)
{
    redisReply *lines = server_ok(server, "UFFD.DOCTOR");
    for (size_t i = 0; i < lines->elements; i++) {
        const char *line = lines->element[i]->str;
        if (strlen(line) > 5 && strncmp(line + 5, name, strlen(name)) == 0 &&
            line[5 + strlen(name)] == ':')
            return line;
    }
    fail("no finding %s", name);
}

void check_finding(struct server *server, const char *name, const char *status)
{
    const char *line = finding(server, name);
    CHECK(strncmp(line, status, strlen(status)) == 0, "expected %s: %s", status, line);
    bool remedy = strstr(line, " - remedy: ");
    CHECK(remedy == (strcmp(status, "OK ") != 0), "remedy: %s", line);
}

void check_finding_says(struct server *server, const char *name, const char *status,
                        const char *text)
{
    check_finding(server, name, status);
    CHECK(strstr(finding(server, name), text), "no \"%s\": %s", text,
          finding(server, name));
}

const char *answer_bytes(struct server *server, const char *lines)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)server->port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int connection = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(connection, (struct sockaddr *)&address, sizeof(address)) == 0,
          "cannot connect");
    char *all = format_text("%s\r\nQUIT\r\n", lines);
    CHECK(write(connection, all, strlen(all)) == (ssize_t)strlen(all), "write");
    size_t size = 1 << 20, length = 0;
    char *answer = malloc(size);
    ssize_t got;
    while ((got = read(connection, answer + length, size - length - 1)) > 0)
        length += (size_t)got;
    answer[length] = '\0';
    close(connection);
    return answer;
}
