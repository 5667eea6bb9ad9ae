#include "kernel/random.h"

#include <sys/random.h>
#include <unistd.h>

#include "kernel/thread.h"

#ifndef GRND_INSECURE
#define GRND_INSECURE 4 /* Linux 5.6 */
#endif

/* What a sandbox without getrandom() leaves: two processes differ in their threads'
 * addresses and in the nanosecond. */
static uint64_t number_of_this_moment(void)
{
    uint64_t number = clock_nsec();
    number ^= (uint64_t)(uintptr_t)__builtin_thread_pointer() << 20;
    number ^= (uint64_t)getpid() << 40;
    /* splitmix64's finish: every bit of it in every bit of the result. */
    number = (number ^ number >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    number = (number ^ number >> 27) * UINT64_C(0x94d049bb133111eb);
    return number ^ number >> 31;
}

uint64_t random_number(void)
{
    uint64_t number;
    if (getrandom(&number, sizeof(number), GRND_INSECURE) != (ssize_t)sizeof(number))
        return number_of_this_moment();
    return number;
}
