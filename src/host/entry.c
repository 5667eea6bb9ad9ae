#include "host/entry.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernel/contract.h"
#include "kernel/symbols.h"

#if defined(__x86_64__)

/* jmp *0(%rip), and the address behind it. */
static const uint8_t jump[] = {0xff, 0x25, 0, 0, 0, 0};
#define JUMP_BYTES (sizeof(jump) + sizeof(void *))

/* By their numbers in instructions. */
enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11 };
#define BIT(number) (1U << (number))

/* What a function may change and the replacement does not look at. */
static unsigned free_registers(unsigned arguments)
{
    static const unsigned passed[] = {BIT(RDI), BIT(RSI), BIT(RDX)};
    unsigned registers = BIT(RAX) | BIT(RCX) | BIT(RDX) | BIT(RSI) | BIT(RDI) | BIT(R8) |
                         BIT(R9) | BIT(R10) | BIT(R11);
    for (unsigned i = 0; i < arguments && i < sizeof(passed) / sizeof(passed[0]); i++)
        registers &= ~passed[i];
    return registers;
}

/* The length of the instruction at `code` if it is one of the few that may stay: it only
 * sets a register that nobody needs, or the flags. Else 0. The compilers' functions begin
 * with one of them where there is something to do without a frame of the stack. */
static size_t harmless_instruction(const uint8_t *code, unsigned registers)
{
    static const uint8_t endbr64[] = {0xf3, 0x0f, 0x1e, 0xfa};
    bool is_wide = (code[0] & 0xfa) == 0x48; /* REX.W, perhaps R or B */
    if (memcmp(code, endbr64, sizeof(endbr64)) == 0)
        return sizeof(endbr64);
    if (code[0] == 0x85 && code[1] >= 0xc0) /* test a, b */
        return 2;
    if (!is_wide)
        return 0;
    unsigned source = (code[2] >> 3 & 7) | (code[0] & 4) << 1;
    unsigned target = (code[2] & 7) | (code[0] & 1) << 3;
    if (code[1] == 0x89 && code[2] >= 0xc0 && BIT(target) & registers) /* mov a, b */
        return 3;
    /* mov x(%rip), a */
    return code[1] == 0x8b && (code[2] & 0xc7) == 5 && BIT(source) & registers ? 7 : 0;
}

#elif defined(__aarch64__)

/* ldr x16, .+8; br x16, and the address behind them. No function expects x16 or x17 to stay
 * as they are between a call and where it arrives. */
static const uint32_t jump[] = {0x58000050, 0xd61f0200};
#define JUMP_BYTES (sizeof(jump) + sizeof(void *))

#define BIT(number) (1U << (number))

/* The same: of x0 to x17. */
static unsigned free_registers(unsigned arguments)
{
    return (BIT(18) - 1) & ~(BIT(arguments) - 1);
}

/* The same. What computes something sets a register and flags at most: the encodings of
 * data processing, with an immediate (adr and adrp too) or registers alone. As a register
 * 31 may be the stack pointer, but not of a comparison. */
static size_t harmless_instruction(const uint8_t *code, unsigned registers)
{
    uint32_t instruction;
    memcpy(&instruction, code, sizeof(instruction));
    unsigned target = instruction & 31;
    bool is_mark = instruction == 0xd503245f;                 /* bti c */
    bool compares = (instruction & 0x3f80001f) == 0x3100001f; /* with an immediate */
    bool computes = (instruction >> 26 & 7) == 4 || (instruction >> 25 & 7) == 5;
    return is_mark || compares || (computes && BIT(target) & registers)
               ? sizeof(instruction)
               : 0;
}

#endif

static size_t kept_bytes(const void *function, unsigned arguments)
{
    size_t kept = harmless_instruction(function, free_registers(arguments));
    return kept && symbol_bytes(function) >= kept + JUMP_BYTES ? kept : 0;
}

/* The kernel counts a process's threads as directories. */
static bool is_only_thread(void)
{
    struct stat threads;
    return stat("/proc/self/task", &threads) == 0 && threads.st_nlink == 3;
}

int entry_check(const void *function, unsigned arguments)
{
    if (!kept_bytes(function, arguments))
        return -EOPNOTSUPP;
    return is_only_thread() ? 0 : -EBUSY;
}

/* Never without the right to run it: a policy that lets code be written, but not be made
 * to run again, would leave the page dead. */
static int write_code(uint8_t *at, const uint8_t *code, size_t length)
{
    uintptr_t page_bytes = (uintptr_t)sysconf(_SC_PAGESIZE);
    uint8_t *page = (uint8_t *)((uintptr_t)at & ~(page_bytes - 1));
    size_t bytes = (size_t)(at + length - page);
    if (mprotect(page, bytes, PROT_READ | PROT_WRITE | PROT_EXEC) != 0)
        return -errno;
    memcpy(at, code, length);
    mprotect(page, bytes, PROT_READ | PROT_EXEC);
    __builtin___clear_cache((char *)at, (char *)at + length);
    return 0;
}

int entry_replace(void *function, unsigned arguments, void *replacement)
{
    DEMAND_MAIN_THREAD();
    uint8_t code[JUMP_BYTES];
    sigset_t all, before;
    int error = entry_check(function, arguments);
    if (error)
        return error;
    memcpy(code, jump, sizeof(jump));
    memcpy(code + sizeof(jump), &replacement, sizeof(replacement));
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = write_code((uint8_t *)function + kept_bytes(function, arguments), code,
                       sizeof(code));
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}
