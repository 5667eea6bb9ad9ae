#include "kernel/guarded_copy.h"

#include <stdint.h>
#include <string.h>
#include <ucontext.h>

#if defined(__x86_64__)
/* By moves that may overlap, as memcpy() does. Not by `rep movsb`, which takes 200 ns to
 * begin. What may fault lies between the function's beginning and guarded_copy_end. */
__asm__(".text\n"
        ".p2align 5\n"
        ".globl guarded_copy\n"
        ".hidden guarded_copy\n"
        ".type guarded_copy, @function\n"
        "guarded_copy:\n"
        "    .cfi_startproc\n"
        "    cmpq $16, %rdx\n"
        "    jb 3f\n"
        "    movups -16(%rsi,%rdx), %xmm1\n" /* the end first: once read, it is kept */
        "    leaq -16(%rdi,%rdx), %rcx\n"
        "    subq $64, %rdx\n"
        "    jb 1f\n"
        "2:  movups (%rsi), %xmm0\n"
        "    movups 16(%rsi), %xmm2\n"
        "    movups 32(%rsi), %xmm3\n"
        "    movups 48(%rsi), %xmm4\n"
        "    movups %xmm0, (%rdi)\n"
        "    movups %xmm2, 16(%rdi)\n"
        "    movups %xmm3, 32(%rdi)\n"
        "    movups %xmm4, 48(%rdi)\n"
        "    addq $64, %rsi\n"
        "    addq $64, %rdi\n"
        "    subq $64, %rdx\n"
        "    jae 2b\n"
        "1:  cmpq %rcx, %rdi\n"
        "    jae 7f\n"
        "    movups (%rsi), %xmm0\n"
        "    movups %xmm0, (%rdi)\n"
        "    addq $16, %rsi\n"
        "    addq $16, %rdi\n"
        "    jmp 1b\n"
        "7:  movups %xmm1, (%rcx)\n"
        "    xorl %eax, %eax\n"
        "    ret\n"
        "3:  cmpl $8, %edx\n"
        "    jb 4f\n"
        "    movq (%rsi), %rax\n"
        "    movq -8(%rsi,%rdx), %rcx\n"
        "    movq %rax, (%rdi)\n"
        "    movq %rcx, -8(%rdi,%rdx)\n"
        "    xorl %eax, %eax\n"
        "    ret\n"
        "4:  cmpl $4, %edx\n"
        "    jb 5f\n"
        "    movl (%rsi), %eax\n"
        "    movl -4(%rsi,%rdx), %ecx\n"
        "    movl %eax, (%rdi)\n"
        "    movl %ecx, -4(%rdi,%rdx)\n"
        "    xorl %eax, %eax\n"
        "    ret\n"
        "5:  testl %edx, %edx\n"
        "    jz 6f\n"
        "    movzbl (%rsi), %eax\n"
        "    movb %al, (%rdi)\n"
        "    incq %rsi\n"
        "    incq %rdi\n"
        "    decl %edx\n"
        "    jmp 5b\n"
        "6:  xorl %eax, %eax\n"
        "    ret\n"
        "guarded_copy_end:\n"
        "guarded_copy_landing:\n"
        "    movl $-14, %eax\n" /* -EFAULT */
        "    ret\n"
        "    .cfi_endproc\n"
        ".size guarded_copy, .-guarded_copy\n");

__attribute__((visibility("hidden"))) extern const char guarded_copy_end[],
    guarded_copy_landing[];

bool guarded_copy_land(void *context)
{
    greg_t *at = &((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
    uintptr_t start = (uintptr_t)guarded_copy, end = (uintptr_t)guarded_copy_end;
    if ((uintptr_t)*at < start || (uintptr_t)*at >= end)
        return false;
    *at = (greg_t)(uintptr_t)guarded_copy_landing;
    return true;
}
#else
/* Nowhere to land: a fault is the server's crash. */
int guarded_copy(void *to, const void *from, size_t length)
{
    memcpy(to, from, length);
    return 0;
}

bool guarded_copy_land(void *context)
{
    (void)context;
    return false;
}
#endif
