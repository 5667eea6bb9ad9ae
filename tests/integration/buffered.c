#include "buffered.h"

#include "fill.h"

struct server *buffered_start(uint64_t seed, struct buffered_options options)
{
    needs_module();
    struct server *server = server_start(
        &(struct server_options){.config = FILL_CONFIG "stop-writes-on-bgsave-error no\n",
                                 .module_arguments = options.arguments,
                                 .fault = options.fault});
    fill(server->connection, FILL_ALL, 50, seed);
    json_fill(server->connection, KEYS, BYTES, seed);
    server_config_set(server, "rdb-key-save-delay",
                      format_text("%d", options.delay ? options.delay : 10));
    return server;
}

struct overwriter *buffered_overwrite(struct server *server, uint64_t seed)
{
    return overwriter_start(server, KEYS, BYTES, OVERWRITE_IN_PLACE, seed + 1);
}

bool saving(struct server *server)
{
    return server_info_number(server, "rdb_bgsave_in_progress") == 1;
}

double number(struct server *server, const char *field)
{
    return server_info_number(server, format_text("uffd_%s", field));
}

void check_exact(struct snapshot *snapshot)
{
    const char *wrong = snapshot_fault(snapshot, FILL_CONFIG);
    CHECK(!wrong, "%s", wrong);
}

double most_resident_above(struct server *server, double before, double dataset)
{
    double most = -1e12;
    while (saving(server)) {
        double grown = server_info_number(server, "used_memory") - dataset;
        double above =
            (double)process_resident(server) - before - (grown > 0 ? grown : 0);
        if (above > most)
            most = above;
        sleep_msec(20);
    }
    return most;
}

void note_result(struct server *server, long commands)
{
    test_note(
        "%ld commands, %.0f pages preserved, peak %.1f MB, spool %.1f MB, %.0f waits "
        "of %.0f ms in all",
        commands, number(server, "last_pages_preserved"),
        number(server, "buffer_peak_bytes") / MEGABYTE,
        number(server, "last_spool_peak_bytes") / MEGABYTE,
        number(server, "writer_waits"), number(server, "writer_wait_usec") / 1000);
}

void wait_for_number(struct server *server, const char *field, double least, double most,
                     double seconds)
{
    double until = patient_seconds() + seconds, value;
    while ((value = number(server, field)) < least || value > most) {
        CHECK(patient_seconds() < until, "uffd_%s stays at %.0f", field, value);
        sleep_msec(5);
    }
}
