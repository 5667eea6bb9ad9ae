#include "testcase.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SKIPPED         77
#define NOT_RUN         78
#define LOG_TAIL_BYTES  1800
#define EXIT_BY_TIMEOUT 124
/* How often the patient clock is moved on. */
#define PACE_MSEC 20
/* A thread that sleeps and wakes all the time, as a save with a delay for each key does,
 * waits longer for a processor than its share of it makes up for. */
#define FOR_WAKING 3

void (*test_epilogue)(void);
/* Microseconds. Shared with the case, whose time the program that started it keeps. */
static _Atomic uint64_t *patient_usec;
static char directory[PATH_MAX];

/* ---- what cases use ---- */

const char *test_directory(void)
{
    return directory;
}

static void print_note(const char *format, va_list arguments)
{
    fputs("    # ", stdout);
    vprintf(format, arguments);
    putchar('\n');
    fflush(stdout);
}

void test_note(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    print_note(format, arguments);
    va_end(arguments);
}

void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    print_note(format, arguments);
    va_end(arguments);
    _exit(1);
}

/* The reason reaches the line of the verdict through a file. */
static _Noreturn void end_with_reason(int code, const char *format, va_list arguments)
{
    FILE *file = fopen(format_text("%s/reason", directory), "w");
    if (file) {
        vfprintf(file, format, arguments);
        fclose(file);
    }
    _exit(code);
}

void skip(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    end_with_reason(SKIPPED, format, arguments);
}

void not_applicable(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    end_with_reason(NOT_RUN, format, arguments);
}

char *format_text(const char *format, ...)
{
    char *text;
    va_list arguments;
    va_start(arguments, format);
    int length = vasprintf(&text, format, arguments);
    va_end(arguments);
    if (length < 0)
        abort();
    return text;
}

double clock_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

double patient_seconds(void)
{
    return (double)atomic_load(patient_usec) / 1e6;
}

void sleep_msec(long msec)
{
    struct timespec time = {msec / 1000, msec % 1000 * 1000000};
    while (nanosleep(&time, &time) < 0 && errno == EINTR)
        ;
}

uint64_t random_next(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

uint64_t test_seed(void)
{
    const char *given = getenv("SEED");
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t seed = given ? strtoull(given, NULL, 10)
                          : (uint64_t)now.tv_nsec ^ (uint64_t)now.tv_sec << 20;
    test_note("SEED=%llu", (unsigned long long)seed);
    return seed;
}

bool test_is_repeated(void)
{
    return getenv("SERVER_NAME") != NULL;
}

bool test_is_soak(void)
{
    const char *soak = getenv("SOAK");
    return soak && strcmp(soak, "") != 0 && strcmp(soak, "0") != 0;
}

const char *source_text(const char *path)
{
    FILE *file = fopen(path, "r");
    CHECK(file, "no %s", path);
    char *text = calloc(1, 65536);
    size_t length = fread(text, 1, 65535, file);
    fclose(file);
    CHECK(length > 0 && length < 65535, "%s: %zu bytes", path, length);
    return text;
}

pid_t start_program(const char *output_file, const char *const *arguments)
{
    pid_t pid = fork();
    if (pid == 0) {
        int output = open(output_file ? output_file : "/dev/null",
                          O_WRONLY | O_CREAT | O_APPEND, 0644);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(output, STDOUT_FILENO);
        dup2(output, STDERR_FILENO);
        execvp(arguments[0], (char *const *)arguments);
        _exit(127);
    }
    return pid;
}

int run_program(const char *output_file, const char *const *arguments)
{
    pid_t pid = start_program(output_file, arguments);
    if (pid < 0)
        return 127;
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return 127;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* ---- leaving nothing behind ---- */

static int remove_entry(const char *path, const struct stat *status, int kind,
                        struct FTW *walk)
{
    (void)status, (void)kind, (void)walk;
    if (remove(path) < 0)
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
    return 0;
}

/* We are the reaper of everything below us, so that whatever outlives its
 * parent becomes our child; an empty list of children means all are gone. */
static void kill_descendants(pid_t group)
{
    kill(-group, SIGKILL);
    char *list = format_text("/proc/self/task/%d/children", (int)getpid());
    for (;;) {
        FILE *file = fopen(list, "r");
        for (int child; file && fscanf(file, "%d", &child) == 1;)
            kill(child, SIGKILL);
        if (file)
            fclose(file);
        if (waitpid(-1, NULL, 0) < 0 && errno == ECHILD)
            break;
    }
    free(list);
}

static void print_tail(const char *path)
{
    FILE *file = fopen(path, "r");
    if (!file)
        return;
    printf("    # the end of %s:\n", path);
    if (fseek(file, -LOG_TAIL_BYTES, SEEK_END) < 0)
        rewind(file);
    char line[1024] = "\n";
    while (fgets(line, sizeof line, file))
        printf("    | %s", line);
    /* The result's line comes next, and is counted by its beginning. */
    if (!strchr(line, '\n'))
        putchar('\n');
    fclose(file);
}

static int print_if_log(const char *path, const struct stat *status, int kind,
                        struct FTW *walk)
{
    (void)status;
    if (kind == FTW_F && strcmp(path + walk->base, "log") == 0)
        print_tail(path);
    return 0;
}

/* ---- running a case ---- */

struct verdict {
    int code;
    int signal; /* that interrupted us, 0 */
    double seconds;
    char reason[200];
};

static _Noreturn void child_body(void (*body)(void), const sigset_t *signals)
{
    pid_t parent = getppid();
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    sigprocmask(SIG_UNBLOCK, signals, NULL);
    signal(SIGPIPE, SIG_IGN);
    body();
    if (test_epilogue)
        test_epilogue();
    fflush(stdout);
    _exit(0);
}

/* How many times slower than a machine this one is, by PATIENCE of the environment: an
 * emulator, or a program that is watched at each step. */
static double slowness(void)
{
    const char *given = getenv("PATIENCE");
    double times = given ? strtod(given, NULL) : 1;
    return times > 1 ? times : 1;
}

/* For each processor, threads that want it now; we are one of those that are counted. */
static double contention(void)
{
    static long processors;
    if (!processors)
        processors = sysconf(_SC_NPROCESSORS_ONLN);
    FILE *file = fopen("/proc/loadavg", "r");
    int wanting = 1;
    if (file) {
        if (fscanf(file, "%*f %*f %*f %d/", &wanting) != 1)
            wanting = 1;
        fclose(file);
    }
    double each = (double)(wanting - 1) / (double)processors;
    return each > 1 ? each : 1;
}

/* To be called often. */
static void move_patient_clock(double *last)
{
    double now = clock_seconds();
    double pace = slowness() * (1 + FOR_WAKING * (contention() - 1));
    atomic_fetch_add(patient_usec, (uint64_t)((now - *last) * 1e6 / pace));
    *last = now;
}

/* Waits for the end of the case, its time, or a signal that ends us. */
static void wait_for_case(pid_t pid, const sigset_t *signals, double limit,
                          struct verdict *verdict)
{
    static const struct timespec pace = {.tv_nsec = PACE_MSEC * 1000000};
    double last = clock_seconds(), end = patient_seconds() + limit;
    for (;;) {
        int status;
        if (waitpid(pid, &status, WNOHANG) == pid) {
            verdict->code =
                WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
            return;
        }
        move_patient_clock(&last);
        if (patient_seconds() >= end) {
            verdict->code = EXIT_BY_TIMEOUT;
            return;
        }
        int caught = sigtimedwait(signals, NULL, &pace);
        if (caught > 0 && caught != SIGCHLD) {
            verdict->signal = caught;
            return;
        }
    }
}

static void start_patient_clock(void)
{
    if (patient_usec)
        return;
    void *shared = mmap(NULL, sizeof(*patient_usec), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    patient_usec = shared;
}

static void make_directory(void)
{
    const char *base = getenv("TMPDIR");
    snprintf(directory, sizeof directory, "%s/rdb_uffd.XXXXXX",
             base && *base ? base : "/tmp");
    if (!mkdtemp(directory) || chmod(directory, 0711) < 0) {
        perror(directory);
        exit(1);
    }
}

static bool is_bad(int code)
{
    return code != 0 && code != SKIPPED && code != NOT_RUN;
}

static void explain(struct verdict *verdict, int limit)
{
    char *path = format_text("%s/reason", directory);
    FILE *file = is_bad(verdict->code) ? NULL : fopen(path, "r");
    if (file) {
        if (!fgets(verdict->reason, sizeof verdict->reason, file))
            verdict->reason[0] = '\0';
        fclose(file);
    } else if (verdict->code == EXIT_BY_TIMEOUT) {
        snprintf(verdict->reason, sizeof verdict->reason, "not done in %d s", limit);
    } else if (verdict->code > 128) {
        snprintf(verdict->reason, sizeof verdict->reason, "died of %s",
                 strsignal(verdict->code - 128));
    }
    free(path);
}

static struct verdict run_isolated(void (*body)(void), int seconds, bool show_logs)
{
    struct verdict verdict = {0};
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGCHLD);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGHUP);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    make_directory();
    start_patient_clock();
    fflush(stdout);
    double start = clock_seconds();
    pid_t pid = fork();
    if (pid == 0)
        child_body(body, &signals);
    setpgid(pid, pid);
    wait_for_case(pid, &signals, seconds, &verdict);
    verdict.seconds = clock_seconds() - start;
    kill_descendants(pid);
    if (verdict.signal == 0 && is_bad(verdict.code) && show_logs)
        nftw(directory, print_if_log, 16, FTW_PHYS);
    explain(&verdict, seconds);
    nftw(directory, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    return verdict;
}

static void end_if_interrupted(const struct verdict *verdict)
{
    if (!verdict->signal)
        return;
    fflush(stdout);
    signal(verdict->signal, SIG_DFL);
    sigset_t all;
    sigfillset(&all);
    raise(verdict->signal);
    sigprocmask(SIG_UNBLOCK, &all, NULL);
    _exit(128 + verdict->signal);
}

int test_run_alone(const char *name, void (*body)(void), int seconds)
{
    struct verdict verdict = run_isolated(body, seconds, true);
    end_if_interrupted(&verdict);
    if (verdict.code != 0 && verdict.reason[0])
        printf("%s: %s\n", name, verdict.reason);
    return verdict.code;
}

static bool is_wanted(const char *full_name, int argc, char **argv)
{
    const char *only = getenv("ONLY");
    bool restricted = only && *only;
    if (restricted && strstr(full_name, only))
        return true;
    for (int i = 1; i < argc; i++) {
        restricted = true;
        if (strstr(full_name, argv[i]))
            return true;
    }
    return !restricted;
}

int test_run(const char *suite, const struct test_case *cases, int argc, char **argv)
{
    int failed = 0, passed = 0, skipped = 0;
    bool list = argc > 1 && strcmp(argv[1], "--list") == 0;
    for (const struct test_case *c = cases; c->name; c++) {
        char name[100];
        /* Which server it runs on, unless it is the installed one. */
        const char *server = getenv("SERVER_NAME");
        snprintf(name, sizeof name, "%s%s%s/%s", server ? server : "", server ? ":" : "",
                 suite, c->name);
        if (list) {
            puts(name);
            continue;
        }
        if (!is_wanted(name, argc, argv))
            continue;
        /* Soak runs the same cases for longer: their limits grow with them. */
        struct verdict verdict =
            run_isolated(c->body, c->seconds * (test_is_soak() ? 60 : 1), true);
        end_if_interrupted(&verdict);
        const char *word = verdict.code == 0         ? "ok"
                           : verdict.code == SKIPPED ? "skipped"
                           : verdict.code == NOT_RUN ? "not-run"
                                                     : "FAILED";
        printf("%-8s %-44s %7.2f s%s%s\n", word, name, verdict.seconds,
               verdict.reason[0] ? "  " : "", verdict.reason);
        fflush(stdout);
        passed += verdict.code == 0;
        skipped += verdict.code == SKIPPED;
        failed += is_bad(verdict.code);
    }
    return failed ? 1 : skipped && !passed ? SKIPPED : 0;
}
