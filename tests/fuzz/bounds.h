/* What no input may bring about, however it claims to be: more memory than this at once.
 * Included once by every target; endless work is found by libFuzzer's own time limit. */
#ifndef FUZZ_BOUNDS_H
#define FUZZ_BOUNDS_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAPPING_MOST ((size_t)64 << 20)

static size_t mapping_most = MAPPING_MOST;

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length);
int LLVMFuzzerInitialize(int *count, char ***arguments);
void *__real_memory_map(size_t bytes);
void *__wrap_memory_map(size_t bytes);

/* The linker puts it in the place of memory_map(). */
void *__wrap_memory_map(size_t bytes)
{
    if (bytes > mapping_most) {
        fprintf(stderr, "an input asks for %zu bytes\n", bytes);
        abort();
    }
    return __real_memory_map(bytes);
}

/* The sanitizer would look at the bytes before the kernel does, which is asked because they
 * may not be there. */
ssize_t __wrap_write(int file, const void *bytes, size_t length);

ssize_t __wrap_write(int file, const void *bytes, size_t length)
{
    return syscall(SYS_write, file, bytes, length);
}

#endif
