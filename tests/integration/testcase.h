/* Test programs of named cases, each case a process of its own.
 *
 * A case that returns has passed; CHECK() that does not hold and fail() end it
 * as failed, skip() as skipped: the machine lacks something that the case needs.
 * not_applicable() ends it as not run: there is nothing that it could show, as
 * with a server that does not know the commands it is about; nobody counts it.
 * Whatever a case leaves behind is removed by the
 * program that started it, whether the case ended, crashed, ran out of time or
 * was interrupted: every process below it (also re-parented ones) is killed,
 * and its directory is deleted. A case therefore frees and closes nothing.
 *
 * Output, one line a case:   ok|FAILED|skipped|not-run  suite/case  seconds  [reason]
 */
#ifndef RDB_UFFD_TESTS_TESTCASE_H
#define RDB_UFFD_TESTS_TESTCASE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct test_case {
    const char *name;
    void (*body)(void);
    int seconds; /* limit, of patient_seconds(); the case has failed when it is over */
};

/* Runs the cases whose "suite/name" contains the environment's ONLY or one of
 * the arguments, all if there is neither; `--list` just names them. Returns
 * the exit code of the program: 0 all passed, 1 some failed, 77 skipped and none passed. */
int test_run(const char *suite, const struct test_case *cases, int argc, char **argv);

/* Runs one body the same way, but silently and with the terminal's signals
 * ending it cleanly; for programs that are no tests. Returns its exit code. */
int test_run_alone(const char *name, void (*body)(void), int seconds);

/* Called in the case's process when its body has returned. */
extern void (*test_epilogue)(void);

/* ---- for the code of a case ---- */

/* The directory of the running case, readable by every user. */
const char *test_directory(void);
void test_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void skip(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void not_applicable(const char *format, ...)
    __attribute__((format(printf, 1, 2)));
#define CHECK(condition, ...)                                                            \
    do {                                                                                 \
        if (!(condition)) {                                                              \
            test_note("%s:%d: %s", __FILE__, __LINE__, #condition);                      \
            fail(__VA_ARGS__);                                                           \
        }                                                                                \
    } while (0)

/* printf into memory that lives as long as the case. */
char *format_text(const char *format, ...) __attribute__((format(printf, 1, 2)));
double clock_seconds(void);
void sleep_msec(long msec);
/* A clock for limits: seconds of a machine that has nothing else to do. The more threads
 * want each processor, the more slowly it goes, and it is never ahead of
 * clock_seconds(). Limits by it find what hangs, and what takes longer than it should,
 * on a busy machine too; and in an emulator, where the environment's PATIENCE says how many
 * times slower that is. */
double patient_seconds(void);
/* Polls; fails with the message when the condition does not hold after `seconds` of
 * patient_seconds(). */
#define WAIT_UNTIL(condition, seconds, ...)                                              \
    do {                                                                                 \
        double wait_until_end = patient_seconds() + (seconds);                           \
        while (!(condition)) {                                                           \
            CHECK(patient_seconds() < wait_until_end, __VA_ARGS__);                      \
            sleep_msec(5);                                                               \
        }                                                                                \
    } while (0)
/* SEED of the environment, else a fresh one; always printed. */
uint64_t test_seed(void);
/* True where the case is one of a list that runs on every other server as well. */
bool test_is_repeated(void);
/* True in `make soak`: run long. */
bool test_is_soak(void);
/* A file of the source tree, which the tests run in, at `path` there. */
const char *source_text(const char *path);
/* splitmix64: the next number of the sequence. */
uint64_t random_next(uint64_t *state);
/* Starts a program, its output appended to `output_file` (NULL: dropped), which ends with
 * the case. Its process, -1 if it could not be started. */
pid_t start_program(const char *output_file, const char *const *arguments);
/* Runs a program, its output appended to `output_file` (NULL: dropped).
 * Returns its exit code, 127 if it could not be started. */
int run_program(const char *output_file, const char *const *arguments);

#endif
