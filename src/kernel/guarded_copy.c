#include "kernel/guarded_copy.h"

#include <stdint.h>
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

static uintptr_t *program_counter(void *context)
{
    return (uintptr_t *)&((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
}
#elif defined(__aarch64__)
/* The same. It begins as where indirect branches may land (bti c; elsewhere a nop). */
__asm__(".text\n"
        ".p2align 5\n"
        ".globl guarded_copy\n"
        ".hidden guarded_copy\n"
        ".type guarded_copy, %function\n"
        "guarded_copy:\n"
        "    .cfi_startproc\n"
        "    hint #34\n"
        "    cmp x2, #16\n"
        "    b.lo 3f\n"
        "    add x3, x1, x2\n"
        "    ldur q1, [x3, #-16]\n" /* the end first: once read, it is kept */
        "    add x4, x0, x2\n"
        "    sub x4, x4, #16\n"
        "    subs x2, x2, #64\n"
        "    b.lo 1f\n"
        "2:  ldp q0, q2, [x1]\n"
        "    ldp q3, q4, [x1, #32]\n"
        "    stp q0, q2, [x0]\n"
        "    stp q3, q4, [x0, #32]\n"
        "    add x1, x1, #64\n"
        "    add x0, x0, #64\n"
        "    subs x2, x2, #64\n"
        "    b.hs 2b\n"
        "1:  cmp x0, x4\n"
        "    b.hs 7f\n"
        "    ldr q0, [x1], #16\n"
        "    str q0, [x0], #16\n"
        "    b 1b\n"
        "7:  str q1, [x4]\n"
        "    mov w0, #0\n"
        "    ret\n"
        "3:  add x5, x1, x2\n"
        "    add x6, x0, x2\n"
        "    tbz x2, #3, 4f\n"
        "    ldr x3, [x1]\n"
        "    ldur x4, [x5, #-8]\n"
        "    str x3, [x0]\n"
        "    stur x4, [x6, #-8]\n"
        "    mov w0, #0\n"
        "    ret\n"
        "4:  tbz x2, #2, 5f\n"
        "    ldr w3, [x1]\n"
        "    ldur w4, [x5, #-4]\n"
        "    str w3, [x0]\n"
        "    stur w4, [x6, #-4]\n"
        "    mov w0, #0\n"
        "    ret\n"
        "5:  cbz x2, 6f\n"
        "    ldrb w3, [x1], #1\n"
        "    strb w3, [x0], #1\n"
        "    sub x2, x2, #1\n"
        "    b 5b\n"
        "6:  mov w0, #0\n"
        "    ret\n"
        "guarded_copy_end:\n"
        "guarded_copy_landing:\n"
        "    mov w0, #-14\n" /* -EFAULT */
        "    ret\n"
        "    .cfi_endproc\n"
        ".size guarded_copy, .-guarded_copy\n");

static uintptr_t *program_counter(void *context)
{
    return (uintptr_t *)&((ucontext_t *)context)->uc_mcontext.pc;
}
#else
#error "no copy that may fault is known for this architecture"
#endif

__attribute__((visibility("hidden"))) extern const char guarded_copy_end[],
    guarded_copy_landing[];

bool guarded_copy_land(void *context)
{
    uintptr_t *at = program_counter(context);
    if (*at < (uintptr_t)guarded_copy || *at >= (uintptr_t)guarded_copy_end)
        return false;
    *at = (uintptr_t)guarded_copy_landing;
    return true;
}
